import html
import json
import pickle
import re
from importlib import resources
from pathlib import Path

import ftfy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest_jax.errors import ConfigError
from harvest_jax.input.tokenizer import VOCAB_SIZE, Tokenizer, clean

REFERENCE = json.loads((Path(__file__).parents[1] / "data" / "clip_token_ids.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer()


def test_equals_ids_recorded_from_the_reference(tokenizer):
    texts = [case["text"] for case in REFERENCE["cases"]]
    expected = [case["ids"] for case in REFERENCE["cases"]]
    assert len(texts) >= 200
    assert [tokenizer.encode(text) for text in texts] == expected


def test_batch_equals_one_by_one(tokenizer):
    texts = [case["text"] for case in REFERENCE["cases"]]
    rows = tokenizer(texts, 77)
    assert np.array_equal(rows, np.concatenate([tokenizer([text], 77) for text in texts]))
    for row, case in zip(rows, REFERENCE["cases"], strict=True):
        ids = case["ids"][:75]
        assert row.tolist() == [49406, *ids, 49407] + [0] * (75 - len(ids))


def test_row_layout(tokenizer):
    rows = tokenizer(["", "a photo of a cat.", "word " * 100], 8)
    assert rows.dtype == np.int32
    assert rows[0].tolist() == [tokenizer.sot, tokenizer.eot, 0, 0, 0, 0, 0, 0]
    assert rows[1].tolist() == [tokenizer.sot, 320, 1125, 539, 320, 2368, 269, tokenizer.eot]
    assert rows[2].tolist() == [tokenizer.sot, *[2653] * 6, tokenizer.eot]
    assert tokenizer([], 8).shape == (0, 8)


def test_length_without_room_for_the_ends(tokenizer):
    with pytest.raises(ConfigError, match="length 1 "):
        tokenizer(["a"], 1)


@settings(deadline=None)  # a busy machine must not fail it
@given(st.text(st.characters(codec="ascii"), max_size=60))
def test_cleaning_shortcut_changes_nothing(text):
    full = re.sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(text)))).strip().lower()
    assert clean(text) == full


def test_decode(tokenizer):
    assert (
        tokenizer.decode(tokenizer(["A dog's  ball &amp; 2 CATS, 日本 😀"], 32)[0])
        == "a dog 's ball & 2 cats , 日本 😀"
    )
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode([320, tokenizer.eot, 320]) == "a"
    assert tokenizer.decode(tokenizer.encode("ﷺ")[:-1]) == "\ufffd"  # a character cut within its bytes
    with pytest.raises(ValueError, match="49408"):
        tokenizer.decode([49408])


@pytest.mark.parametrize("vocab_size", [514, 1000, 8192])
def test_fewer_merges_give_longer_decodable_sequences(tokenizer, vocab_size):
    small = Tokenizer(vocab_size)
    assert (small.sot, small.eot) == (vocab_size - 2, vocab_size - 1)
    text = "A red triangle moves left over the ocean; it's 日本語 😀"
    ids = small.encode(text)
    assert len(ids) > len(tokenizer.encode(text))
    assert max(ids) < small.sot
    assert small.decode(ids) == tokenizer.decode(tokenizer.encode(text))
    assert small(["<|endoftext|>"], 4)[0].tolist() == [small.sot, small.eot, small.eot, 0]
    if vocab_size == 514:
        assert small.encode("cat") == [ord(c) - 33 for c in "ca"] + [ord("t") - 33 + 256]


def test_merges_are_a_prefix_so_ids_of_short_words_stay(tokenizer):
    ids = tokenizer.encode("in the")
    assert max(ids) < 1000
    assert Tokenizer(1000).encode("in the") == ids


@pytest.mark.parametrize("vocab_size", [513, VOCAB_SIZE + 1, 0])
def test_impossible_vocabulary(vocab_size):
    with pytest.raises(ConfigError, match=str(vocab_size)):
        Tokenizer(vocab_size)


def test_pickles_small(tokenizer):
    packed = pickle.dumps(Tokenizer(1000))
    assert len(packed) < 1000
    assert pickle.loads(packed).encode("hello") == Tokenizer(1000).encode("hello")


def test_vocabulary_is_shipped_with_its_licence():
    folder = resources.files("harvest_jax.input").joinpath("vocab")
    assert len(folder.joinpath("clip_merges.txt.gz").read_bytes()) < 1_000_000
    assert "Copyright (c) 2021 OpenAI" in folder.joinpath("LICENSE").read_text()
    assert "openai-clip" in folder.joinpath("SOURCE.md").read_text()
