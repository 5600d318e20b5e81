"""The losses against plain numpy, and what the masked slots stand for."""

import jax.numpy as jnp
import numpy as np

from harvest_jax.train.losses import contrastive_loss, masked_word_loss
from harvest_jax.train.step import masked_positions


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_contrastive_loss_is_symmetric_infonce():
    rng = np.random.default_rng(0)
    video, text = rng.normal(size=(5, 7)), rng.normal(size=(5, 7))
    scale = np.log(10.0)
    v, t = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (video, text))
    logits = 10.0 * v @ t.T
    expected = -(np.diag(log_softmax(logits)).mean() + np.diag(log_softmax(logits.T)).mean()) / 2
    loss, accuracy = contrastive_loss(jnp.float32(video), jnp.float32(text), jnp.float32(scale))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(accuracy["batch_R@1_v2t"], np.mean(logits.argmax(1) == np.arange(5)))
    np.testing.assert_allclose(accuracy["batch_R@1_t2v"], np.mean(logits.argmax(0) == np.arange(5)))


def test_contrastive_loss_does_not_depend_on_the_embeddings_length():
    rng = np.random.default_rng(0)
    video, text = jnp.float32(rng.normal(size=(4, 6))), jnp.float32(rng.normal(size=(4, 6)))
    one, _ = contrastive_loss(video, text, jnp.float32(2.0))
    other, _ = contrastive_loss(3 * video, 0.1 * text, jnp.float32(2.0))
    np.testing.assert_allclose(one, other, rtol=1e-5)


def test_masked_slots_equal_a_full_vocabulary_loss_over_all_positions():
    """Slots are a way to compute less: the loss is the naive one, with -100 (ignored) everywhere that is not masked."""
    rng = np.random.default_rng(0)
    length, vocab = 9, 11
    logits = rng.normal(size=(3, length, vocab)).astype(np.float32)
    ids = rng.integers(0, vocab, (3, length))
    slots = np.array([[1, 4, 0], [2, 0, 0], [0, 0, 0]], np.int32)
    weights = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]], np.float32)

    labels = np.full((3, length), -100)
    for row in range(3):
        for slot, weight in zip(slots[row], weights[row], strict=True):
            if weight:
                labels[row, slot] = ids[row, slot]
    picked = [(row, place) for row in range(3) for place in range(length) if labels[row, place] != -100]
    naive = -np.mean([log_softmax(logits[r, p])[labels[r, p]] for r, p in picked])
    right = np.mean([logits[r, p].argmax() == labels[r, p] for r, p in picked])

    at_slots = np.take_along_axis(logits, slots[..., None], axis=1)
    targets = np.take_along_axis(ids, slots, axis=1).astype(np.int32)
    loss, accuracy = masked_word_loss(jnp.asarray(at_slots), jnp.asarray(targets), jnp.asarray(weights))
    np.testing.assert_allclose(loss, naive, rtol=1e-5)
    np.testing.assert_allclose(accuracy, right)
    np.testing.assert_array_equal(
        np.asarray(masked_positions(jnp.asarray(slots), jnp.asarray(weights), length)), labels != -100
    )


def test_no_masked_word_at_all_is_a_loss_of_zero():
    loss, accuracy = masked_word_loss(jnp.ones((2, 3, 5)), jnp.zeros((2, 3), jnp.int32), jnp.zeros((2, 3)))
    assert float(loss) == 0.0
    assert float(accuracy) == 0.0
