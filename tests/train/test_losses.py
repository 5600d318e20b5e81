"""The losses against plain numpy, and what the masked slots stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harvest_jax.train.losses import masked_positions, masked_word_loss, sigmoid_loss, softmax_loss


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def pairs(count=6, width=7, seed=0):
    """Video and text embeddings, a little alike."""
    rng = np.random.default_rng(seed)
    video = rng.normal(size=(count, width)).astype(np.float32)
    return jnp.asarray(video), jnp.asarray(video + 2 * rng.normal(size=(count, width)), jnp.float32)


def naive_logits(video, text, scale):
    v, t = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (video, text))
    return jnp.exp(scale) * jnp.matmul(v, t.T, precision="highest")


def naive_softmax(video, text, scale):
    """CLIP's loss by the whole matrix and autodiff."""
    logits, own = naive_logits(video, text, scale), jnp.arange(len(video))
    rows, columns = jax.nn.log_softmax(logits, axis=1), jax.nn.log_softmax(logits, axis=0)
    return -(rows[own, own].mean() + columns[own, own].mean()) / 2


def naive_sigmoid(video, text, scale, bias):
    """SigLIP's pseudocode (arXiv 2303.15343, algorithm 1)."""
    logits = naive_logits(video, text, scale) + bias
    labels = 2 * jnp.eye(len(video)) - 1
    return -jnp.sum(jax.nn.log_sigmoid(labels * logits)) / len(video)


def test_softmax_loss_is_symmetric_infonce():
    video, text = pairs(5)
    scale = np.log(10.0)
    v, t = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (video, text))
    logits = 10.0 * v @ t.T
    expected = -(np.diag(log_softmax(logits)).mean() + np.diag(log_softmax(logits.T)).mean()) / 2
    loss, accuracy = softmax_loss(video, text, jnp.float32(scale))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(accuracy["batch_R@1_v2t"], np.mean(logits.argmax(1) == np.arange(5)))
    np.testing.assert_allclose(accuracy["batch_R@1_t2v"], np.mean(logits.argmax(0) == np.arange(5)))
    assert 0 < accuracy["batch_R@1_v2t"] < 1


@pytest.mark.parametrize("chunk", [0, 1, 3])
def test_softmax_loss_in_pieces_has_the_whole_ones_value_and_gradient(chunk):
    naive = jax.jit(jax.value_and_grad(naive_softmax, (0, 1, 2)))
    in_pieces = jax.jit(jax.value_and_grad(softmax_loss, (0, 1, 2), has_aux=True), static_argnums=3)
    for scale in (0.0, np.log(10.0), np.log(100.0)):  # at the last one most pairs are certain, and gradients tiny
        arguments = (*pairs(), jnp.float32(scale))
        expected, gradient = naive(*arguments)
        (loss, ranks), found = in_pieces(*arguments, chunk)
        np.testing.assert_allclose(loss, expected, rtol=1e-6, atol=1e-6)
        for ours, theirs in zip(found, gradient, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
        best = naive_logits(*arguments).argmax(axis=1)
        assert float(ranks["batch_R@1_v2t"]) == pytest.approx(float(jnp.mean(best == jnp.arange(6))))


@pytest.mark.parametrize("chunk", [0, 2])
def test_sigmoid_loss_is_siglips_whatever_the_pieces(chunk):
    arguments = (*pairs(), jnp.float32(np.log(10.0)), jnp.float32(-3.0))
    expected, gradient = jax.jit(jax.value_and_grad(naive_sigmoid, (0, 1, 2, 3)))(*arguments)
    in_pieces = jax.jit(jax.value_and_grad(sigmoid_loss, (0, 1, 2, 3), has_aux=True), static_argnums=4)
    (loss, ranks), found = in_pieces(*arguments, chunk)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    for ours, theirs in zip(found, gradient, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert ranks.keys() == {"batch_R@1_v2t", "batch_R@1_t2v"}


@pytest.mark.parametrize("loss", [softmax_loss, lambda *args: sigmoid_loss(*args[:3], jnp.float32(-10), args[3])])
def test_memory_of_a_loss_in_pieces_grows_with_the_batch_and_not_its_square(loss):
    def temporary(size, chunk):
        shapes = (*[jax.ShapeDtypeStruct((size, 8), np.float32)] * 2, jax.ShapeDtypeStruct((), np.float32))
        gradient = jax.jit(jax.grad(lambda *args: loss(*args, chunk)[0], (0, 1, 2)))
        return gradient.lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    assert temporary(2048, 64) < 2.2 * temporary(1024, 64)
    assert temporary(2048, 64) < 0.2 * temporary(2048, 0)


def test_contrastive_loss_does_not_depend_on_the_embeddings_length():
    video, text = pairs(4)
    one, _ = softmax_loss(video, text, jnp.float32(2.0))
    other, _ = softmax_loss(3 * video, 0.1 * text, jnp.float32(2.0))
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
    loss, found = masked_word_loss(jnp.asarray(at_slots), jnp.asarray(targets), jnp.asarray(weights))
    np.testing.assert_allclose(loss / weights.sum(), naive, rtol=1e-5)
    np.testing.assert_allclose(found / weights.sum(), right)
    np.testing.assert_array_equal(
        np.asarray(masked_positions(jnp.asarray(slots), jnp.asarray(weights), length)), labels != -100
    )


def test_no_masked_word_at_all_is_a_loss_of_zero():
    loss, right = masked_word_loss(jnp.ones((2, 3, 5)), jnp.zeros((2, 3), jnp.int32), jnp.zeros((2, 3)))
    assert float(loss) == 0.0
    assert float(right) == 0.0
