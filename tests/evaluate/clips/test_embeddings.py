"""Embeddings of texts."""

from types import SimpleNamespace

import numpy as np

from harvest_jax.evaluate.clips.embeddings import embed_texts


def test_equal_texts_are_embedded_once_and_alike():
    calls = []

    def encode_text(texts):
        assert len(texts) == 2  # a batch that is not full is filled up
        calls.append([text for text in texts if text])
        return np.array([[len(text), len(calls)] for text in texts], np.float32)  # depends on the batch it comes in

    others = "config name digest origin tokenizer num_frames logit_scale encode_video encode_clips answer_logits"
    model = SimpleNamespace(encode_text=encode_text, **dict.fromkeys(others.split(), len))
    values = embed_texts(model, ["red", "blue", "red", "green", "blue"], 2)
    assert calls == [["red", "blue"], ["green"]]
    np.testing.assert_array_equal(values[0], values[2])
    np.testing.assert_array_equal(values[1], values[4])
    assert not np.array_equal(values[0], values[1])
