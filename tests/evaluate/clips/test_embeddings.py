"""Embeddings of texts."""

from types import SimpleNamespace

import numpy as np

from harvest_jax.evaluate.clips.embeddings import embed_texts
from harvest_jax.input.tokenizer import Tokenizer


def stand_in(encode_text):
    others = "name digest origin num_frames logit_scale encode_video encode_clips answer_logits"
    config = SimpleNamespace(text=SimpleNamespace(context_length=77, fixed_length=False))
    return SimpleNamespace(
        encode_text=encode_text, tokenizer=Tokenizer(), config=config, **dict.fromkeys(others.split(), len)
    )


def test_a_call_has_texts_of_one_length():
    calls = []

    def encode_text(texts):
        calls.append(texts)
        return np.array([[len(text)] for text in texts], np.float32)

    long, longer = "a red dog " * 6, "a red dog " * 9
    texts = ["red", long, "blue", longer, "green", "a red dog " * 40]
    values = embed_texts(stand_in(encode_text), texts, 2)
    assert calls == [["red", "blue"], ["green", "green"], [long, longer], [texts[-1], texts[-1]]]
    np.testing.assert_array_equal(values[:, 0], [len(text) for text in texts])


def test_equal_texts_are_embedded_once_and_alike():
    calls = []

    def encode_text(texts):
        assert len(texts) == 2  # a batch that is not full is filled up
        calls.append(texts)
        return np.array([[len(text), len(calls)] for text in texts], np.float32)  # depends on the batch it comes in

    model = stand_in(encode_text)
    values = embed_texts(model, ["red", "blue", "red", "green", "blue"], 2)
    assert calls == [["red", "blue"], ["green", "green"]]
    np.testing.assert_array_equal(values[0], values[2])
    np.testing.assert_array_equal(values[1], values[4])
    assert not np.array_equal(values[0], values[1])
