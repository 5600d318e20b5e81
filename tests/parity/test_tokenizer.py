"""Token ids against the three tokenizers that CLIP's users have: OpenAI's, OpenCLIP's and transformers'."""

import re
import unicodedata

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `parity` is not installed: make parity")
pytest.importorskip("transformers", reason="the extra `parity` is not installed: make parity")

from harvest_jax.input.tokenizer import Tokenizer, clean  # noqa: E402
from tests.parity import torch_clip  # noqa: E402
from tests.parity.texts import captions, made_up  # noqa: E402

pytestmark = pytest.mark.parity
EACH = 10_000
EDGES = ["", " ", "\n\t ", "word " * 5000, "é" * 3000, "x" * 20_000, "😀" * 500, "<|endoftext|>" * 40]


@pytest.fixture(scope="module")
def texts():
    return [*EDGES, *made_up(EACH, seed=1), *captions(EACH, seed=2)]


@pytest.fixture(scope="module")
def ours(texts):
    tokenizer = Tokenizer()
    return [tokenizer.encode(text) for text in texts]


def check(texts, ours, theirs):
    wrong = [text for text, a, b in zip(texts, ours, theirs, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} of {len(texts)} differ, first {wrong[:3]!r}"


def test_openais(texts, ours):
    path = torch_clip.package_folder("clip", "simple_tokenizer.py") / "simple_tokenizer.py"
    reference = torch_clip.module_by_path(path).SimpleTokenizer()
    check(texts, ours, [reference.encode(text) for text in texts])


def test_open_clips(texts, ours):
    """Rows with start, end, cutting and padding too. Its specials have other names, so texts that spell one differ."""
    path = torch_clip.package_folder("open_clip", "tokenizer.py") / "tokenizer.py"
    reference = torch_clip.module_by_path(path).SimpleTokenizer()
    plain = [i for i, text in enumerate(texts) if not re.search(r"<\|?(start|end)_?of_?text", clean(text))]
    assert len(plain) > 1.8 * EACH
    chosen = [texts[i] for i in plain]
    check(chosen, [ours[i] for i in plain], [reference.encode(text) for text in chosen])
    assert np.array_equal(Tokenizer()(chosen, 77), reference(chosen, 77).numpy())


def test_transformers_from_our_vocabulary(texts, ours, tmp_path):
    """Its tokenizer mends nothing: it is given clean text, and none that it would compose or take for a special."""
    from transformers import CLIPTokenizer

    Tokenizer().save_vocabulary(tmp_path)
    reference = CLIPTokenizer.from_pretrained(tmp_path)
    kept = []
    for text, ids in zip(texts, ours, strict=True):
        cleaned = clean(text)
        if unicodedata.is_normalized("NFC", cleaned) and not set("ſ\u0345") & set(cleaned) and "<|" not in cleaned:
            kept.append((cleaned, ids))
    assert len(kept) > EACH
    found = reference([text for text, _ in kept])["input_ids"]
    check([text for text, _ in kept], [[49406, *ids, 49407] for _, ids in kept], found)
