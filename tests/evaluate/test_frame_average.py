"""The frame-averaging baseline: the stills of a clip, whose order cannot matter."""

import dataclasses

import jax
import numpy as np
import pytest

from harvest_jax.api import Model
from harvest_jax.evaluate import frame_average
from harvest_jax.evaluate.clips.embeddings import clip_encoder, is_image_model
from harvest_jax.evaluate.scores.cosines import unit_vectors
from harvest_jax.model.config import TextConfig
from harvest_jax.model.harvest import Harvest
from tests.helpers.small_model import TINY


def small(num_frames):
    """A model with random weights whose temporal table is not zero."""
    video = dataclasses.replace(TINY.video, num_frames=num_frames, image_size=16, patch_size=8)
    text = TextConfig(vocab_size=49408, context_length=8, width=16, layers=1, heads=2, embed_dim=12)
    config = dataclasses.replace(TINY, video=video, text=text, decoder=None)
    temporal = "ramp" if num_frames > 1 else "zeros"
    return Model(config, Harvest(config).init(jax.random.key(3), temporal), "small")


@pytest.fixture(scope="module")
def model():
    return small(3)


@pytest.fixture(scope="module")
def clips():
    return np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16, 3), np.uint8)


def test_the_average_is_that_of_the_stills(model, clips):
    stills = np.stack([model.encode_video(clips[:, [t, t, t]]) for t in range(3)])
    np.testing.assert_allclose(frame_average.average_of_frames(model, clips), stills.mean(axis=0), atol=1e-6)


def test_the_order_of_frames_moves_the_model_but_not_the_average(model, clips):
    other = clips[:, [2, 0, 1]]
    assert np.abs(model.encode_video(clips) - model.encode_video(other)).max() > 1e-4
    average, of_other = (frame_average.average_of_frames(model, way) for way in (clips, other))
    np.testing.assert_allclose(average, of_other, atol=1e-6)
    assert np.abs(average - model.encode_video(clips)).max() > 1e-4


def test_an_image_model_is_its_own_average(clips):
    image = small(1)
    assert is_image_model(image)
    average = frame_average.average_of_frames(image, clips)
    np.testing.assert_array_equal(average, image.encode_clips(clips))
    np.testing.assert_array_equal(average, clip_encoder(image)(clips))
    alone = np.stack([image.encode_clips(clips[:, [t, t, t]]) for t in range(3)]).mean(axis=0)
    np.testing.assert_allclose(average, unit_vectors(alone, "video"), atol=1e-5)  # each frame has the same weight


def test_a_video_model_sees_missing_frames_as_repeats(model, clips):
    np.testing.assert_array_equal(clip_encoder(model)(clips[:, :2]), model.encode_clips(clips[:, [0, 0, 1]]))


def test_bounds_of_ties_are_left_out_at_any_depth():
    metrics = {
        "a": 1.0,
        "optimistic": {"a": 2.0},
        "part": {"b": 3, "pessimistic": {"b": 0}, "deep": {"optimistic": {}}},
    }
    assert frame_average.without_bounds(metrics) == {"a": 1.0, "part": {"b": 3, "deep": {}}}
