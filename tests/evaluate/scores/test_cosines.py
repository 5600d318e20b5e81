"""Cosines in tiles: a value depends on its two embeddings alone."""

import numpy as np
import pytest

from harvest_jax.evaluate.scores import cosines, ranking


def embeddings(seed, videos, texts, width):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(videos, width)).astype(np.float32), rng.normal(size=(texts, width)).astype(np.float32)


@pytest.mark.parametrize("width", [1, 3, 32, 512])
def test_every_tiling_gives_the_same_bits(width, monkeypatch):
    video, text = embeddings(0, 70, 90, width)
    whole = ranking.similarity(video, text)
    for tile in ((1, 1), (7, 13), (64, 1000), (1000, 3)):
        monkeypatch.setattr(ranking, "TILE", tile)
        np.testing.assert_array_equal(ranking.similarity(video, text), whole)
    row, column = (index.ravel() for index in np.indices(whole.shape))
    np.testing.assert_array_equal(cosines.unit_cosines(video, text).pairs(row, column), whole.ravel())


def test_a_pair_between_two_float32_numbers_has_one_value(monkeypatch):
    """Cosines of exactly zero: every order of summing rounds them differently, to either side of zero."""
    rng = np.random.default_rng(1)
    basis, _ = np.linalg.qr(rng.normal(size=(48, 48)))
    video, text = basis[:24].astype(np.float32), basis[24:].astype(np.float32)
    video, text = np.repeat(video, 5, axis=0), np.repeat(text, 5, axis=0)
    whole = ranking.similarity(video, text)
    assert np.abs(whole).max() < 1e-6
    np.testing.assert_array_equal(whole, np.repeat(np.repeat(whole[::5, ::5], 5, axis=0), 5, axis=1))
    source = cosines.unit_cosines(video, text)
    for row in range(0, len(video), 7):
        part = source.block(slice(row, row + 1), slice(3, 50))
        np.testing.assert_array_equal(part, whole[row : row + 1, 3:50])


def test_pairs_have_the_same_bits_alone_and_among_many():
    video, text = embeddings(2, 40, 40, 512)
    source = cosines.unit_cosines(video, text)
    row, column = (index.ravel() for index in np.indices((40, 40)))
    row, column = np.tile(row, 6), np.tile(column, 6)  # more than are gathered at once
    many = source.pairs(row, column)
    for i in range(0, len(row), 501):
        assert source.pairs(row[i : i + 1], column[i : i + 1])[0] == many[i]


def test_values_are_rounded_once():
    video, text = embeddings(3, 30, 30, 64)
    exact = video.astype(np.longdouble) / np.linalg.norm(video.astype(np.longdouble), axis=1, keepdims=True)
    other = text.astype(np.longdouble) / np.linalg.norm(text.astype(np.longdouble), axis=1, keepdims=True)
    np.testing.assert_array_equal(ranking.similarity(video, text), (exact @ other.T).astype(np.float32))


def test_spans_cover_everything_once():
    assert [(span.start, span.stop) for span in cosines.spans(7, 3)] == [(0, 3), (3, 6), (6, 7)]
    assert not list(cosines.spans(0, 3))
