"""The named policies of evaluations: their indices and times, by the formulas of those that they follow."""

import numpy as np
import pytest

from harvest_jax.pixels.frame_sampling import (
    Sampling,
    inclusive_indices,
    sampled_times,
    segment_indices,
    stored_indices,
)

COUNTS = (1, 2, 3, 7, 8, 9, 12, 16, 29, 30, 31, 100, 299, 300, 301, 1001, 7193)


@pytest.mark.parametrize("wanted", [2, 3, 8, 12, 64])
@pytest.mark.parametrize("stored", COUNTS)
def test_inclusive_indices_have_both_ends_and_equal_steps(stored, wanted):
    indices = inclusive_indices(stored, wanted)
    exact = np.arange(wanted) * (stored - 1) / (wanted - 1)
    assert (indices[0], indices[-1]) == (0, stored - 1)
    assert np.all((exact - indices > -1e-9) & (exact - indices < 1 + 1e-9))  # rounded down
    assert indices.tolist() == np.linspace(0, stored - 1, num=wanted, dtype=int).tolist()  # CLIP4Clip's expression


def test_single_inclusive_frame_is_the_first_and_none_is_an_error():
    assert inclusive_indices(9, 1).tolist() == [0]
    for numbers in ((0, 4), (4, 0)):
        with pytest.raises(ValueError, match="cannot choose"):
            inclusive_indices(*numbers)


@pytest.mark.parametrize(("stored", "wanted"), [(24, 8), (25, 8), (100, 8), (72, 12), (15, 5)])
def test_views_shift_inside_each_segment_and_the_middle_one_is_the_single_one(stored, wanted):
    views = [segment_indices(stored, wanted, None, view, 3) for view in range(3)]
    assert views[1].tolist() == segment_indices(stored, wanted, None).tolist()
    edges = np.arange(wanted + 1) * stored // wanted
    for view in views:
        assert np.all((edges[:-1] <= view) & (view < edges[1:]))
    assert np.all((views[0] < views[1]) & (views[1] < views[2]))
    assert [view.tolist() for view in views] == [
        view.tolist() for view in stored_indices(stored, (), wanted, Sampling(views=3))
    ]


def test_views_of_a_time_are_together_the_middles_of_more_parts():
    views = sampled_times(10.0, 4, Sampling(views=3))
    np.testing.assert_allclose(np.sort(np.concatenate(views)), (np.arange(12) + 0.5) * 10 / 12)
    np.testing.assert_allclose(views[1], sampled_times(10.0, 4, Sampling())[0])


def clip4clip(frames: int, rate: int, most: int) -> list[int]:
    """Frame numbers: the first of each second until reading fails, then `slice_framepos` 2."""
    seconds = np.arange(-(-frames // rate) + 1)  # as many as the video has begun, and one more
    read = [int(second) * rate for second in seconds if second * rate < frames]
    return read if len(read) <= most else [read[i] for i in np.linspace(0, len(read) - 1, num=most, dtype=int)]


@pytest.mark.parametrize("rate", [1, 3, 10, 24, 25, 30])
@pytest.mark.parametrize("frames", COUNTS)
def test_a_frame_a_second_is_clip4clips_choice(frames, rate):
    (times,) = sampled_times(frames / rate, 12, Sampling("fps"))
    assert np.floor(times * rate + 1e-6).astype(int).tolist() == clip4clip(frames, rate, 12)


def test_views_at_a_rate_are_shifted_and_never_empty():
    views = sampled_times(2.5, 12, Sampling("fps", fps=2.0, views=2))
    assert [view.tolist() for view in views] == [[0, 0.5, 1, 1.5, 2], [0.25, 0.75, 1.25, 1.75, 2.25]]
    assert [view.tolist() for view in sampled_times(0.1, 12, Sampling("fps", views=2))] == [[0.0], [0.1]]
    with pytest.raises(ValueError, match="counts pictures"):
        sampled_times(2.5, 12, Sampling("linspace_inclusive"))


def middles(stored: int, first: float, last: float) -> list[float]:
    return (first + (np.arange(stored) + 0.5) * (last - first) / stored).tolist()


def test_stored_frames_at_a_rate_are_the_nearest_to_each_time():
    """16 frames of 30..40 s: the wanted times are 30, 31, ..., 39 s."""
    seconds = middles(16, 30, 40)
    (chosen,) = stored_indices(16, seconds, 12, Sampling("fps"))
    distance = np.abs(np.array(seconds)[:, None] - np.arange(30, 40))
    np.testing.assert_allclose(distance[chosen, np.arange(10)], distance.min(axis=0))
    (fewer,) = stored_indices(16, seconds, 4, Sampling("fps"))
    assert fewer.tolist() == chosen[[0, 3, 6, 9]].tolist()
    assert [view.tolist() for view in stored_indices(1, [7.0], 12, Sampling("fps", views=2))] == [[0], [0]]


def test_stored_frames_counted_are_those_of_the_indices():
    assert stored_indices(16, (), 8, Sampling("linspace_inclusive"))[0].tolist() == inclusive_indices(16, 8).tolist()
    assert stored_indices(16, (), 8, Sampling())[0].tolist() == segment_indices(16, 8, None).tolist()


@pytest.mark.parametrize("seconds", [[0.0, 1.0], [0.0, 2.0, 1.0], [0.0, 1.0, 1.0], [0.0, 1.0, float("inf")]])
def test_a_rate_needs_the_times_of_stored_frames(seconds):
    with pytest.raises(ValueError, match="its 3 frames need as many times, one after the other"):
        stored_indices(3, seconds, 8, Sampling("fps"))


def test_a_protocol_says_what_is_not_as_always():
    assert Sampling().described() == {"sampling": "segment_middle"}
    assert Sampling("fps", views=2, crops=3).described() == {
        "sampling": "fps",
        "sampling_fps": 1.0,
        "views": 2,
        "crops": 3,
    }
