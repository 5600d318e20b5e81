"""Tokenizers that come with a model: what is done to a text, what is put around it, files that are wrong."""

import pickle

import numpy as np
import pytest

from harvest_jax.errors import DataError
from harvest_jax.input.file_tokenizer import FileTokenizer
from harvest_jax.input.question_prompt import prompt_ids
from harvest_jax.input.text_masking import mask_slots
from tests.helpers.tokenizer_files import write_gemma, write_sentencepiece


def test_siglip_texts_have_no_punctuation_and_end_in_padding(tmp_path):
    tokenizer = FileTokenizer(write_sentencepiece(tmp_path / "tokenizer.json"), "", 32)
    assert (tokenizer.sot, tokenizer.eot, tokenizer.pad, tokenizer.around) == (None, 1, 1, 1)
    same = tokenizer(["A dog,  jumps!", "a dog jumps", "a DOG\tjumps (?)"], 16)
    np.testing.assert_array_equal(same[1:], same[:1].repeat(2, axis=0))
    words = tokenizer.encode("a dog jumps")
    assert same[0].tolist() == [*words, 1, *[1] * (15 - len(words))]
    assert tokenizer.decode(same[0]) == "a dog jumps"


def test_siglip_2_texts_keep_punctuation_and_are_padded_with_another_token(tmp_path):
    tokenizer = FileTokenizer(write_gemma(tmp_path / "tokenizer.json"), "", 64)
    assert (tokenizer.eot, tokenizer.pad) == (1, 0)
    rows = tokenizer(["A dog!", "a dog"], 12)
    assert rows[0].tolist() != rows[1].tolist()
    assert rows[0].tolist() == [*tokenizer.encode("a dog!"), 1, *[0] * (11 - len(tokenizer.encode("a dog!")))]
    np.testing.assert_array_equal(tokenizer(["a DOG"], 12)[0], rows[1])


def test_a_long_text_is_cut_and_keeps_its_end(tmp_path):
    tokenizer = FileTokenizer(write_sentencepiece(tmp_path / "tokenizer.json"), "", 32)
    row = tokenizer(["a dog jumps " * 9], 6)[0]
    assert row[-1] == 1
    assert row[:5].tolist() == tokenizer.encode("a dog jumps " * 9)[:5]


def test_words_are_masked_and_prompts_made_without_a_start_token(tmp_path):
    tokenizer = FileTokenizer(write_sentencepiece(tmp_path / "tokenizer.json"), "", 32)
    ids = tokenizer(["a dog jumps"], 16)[0]
    words = len(tokenizer.encode("a dog jumps"))
    slots, weights = mask_slots(np.random.default_rng(0), ids, tokenizer.eot, 1.0, 16, tokenizer.sot)
    assert slots[: int(weights.sum())].tolist() == list(range(words))
    row, slot, cut = prompt_ids(tokenizer, "{question} {mask}", "a dog", 8)
    assert row[:slot].tolist() == tokenizer.encode("a dog")
    assert (row[slot], row[slot + 1], row[-1], cut) == (0, 1, 1, False)


def test_another_process_reads_the_same_file(tmp_path):
    tokenizer = FileTokenizer(write_gemma(tmp_path / "tokenizer.json"), "", 64)
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.digest == tokenizer.digest
    np.testing.assert_array_equal(again(["a dog"], 9), tokenizer(["a dog"], 9))


def test_wrong_files_are_named(tmp_path):
    path = write_sentencepiece(tmp_path / "tokenizer.json")
    with pytest.raises(DataError, match="is not the tokenizer of this model: its SHA-256 is"):
        FileTokenizer(path, "0" * 64, 32)
    with pytest.raises(DataError, match="its ids go to 31, the model has 20"):
        FileTokenizer(path, "", 20)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        FileTokenizer(tmp_path / "gone.json", "", 32)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(DataError, match="not a file of the tokenizers library"):
        FileTokenizer(tmp_path / "broken.json", "", 32)
    other = write_gemma(tmp_path / "other.json", end="[SEP]")
    with pytest.raises(DataError, match="neither </s> nor <eos>"):
        FileTokenizer(other, "", 64)
