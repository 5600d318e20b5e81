"""Which frames of a clip are used: one rule for training, and named rules ("policies") for evaluation.

"segment_middle": the middle of each of `num_frames` equal parts, as TSN, CoTrain, UMT and ViCLIP.
"linspace_inclusive": pictures number i * (N - 1) / (num_frames - 1) of the clip's N, rounded down: first and last
  included, as in perception_models (from its documentation; its code was not seen).
"fps": a picture every 1 / fps seconds from the clip's start on, at most `num_frames`; of more, those of
  "linspace_inclusive". CLIP4Clip (dataloaders/rawvideo_util.py, and dataloader_msrvtt_retrieval.py with
  `slice_framepos` 2, the value of all its commands) with 12 frames at 1 a second. It counts frames instead of seconds
  and rounds the file's rate down to a whole number: of a video with 29.97 a second it takes every 29th frame.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int

Policy = Literal["segment_middle", "linspace_inclusive", "fps"]


@dataclasses.dataclass(frozen=True)
class Sampling:
    """What an evaluation sees of a clip: which frames, in how many views, and which squares of each frame.

    Attributes:
      policy: see the module.
      fps: frames a second, of the policy "fps".
      views: how often frames are taken, each time shifted. View v of V takes the frames at (v + 1/2) / V of each part
        instead of the middle, and at a rate those at (k + v / V) / fps. "linspace_inclusive" has one view.
      crops: squares of each frame: 1 is the centre, 3 are both ends and the centre of the longer side.
    """

    policy: Policy = "segment_middle"
    fps: float = 1.0
    views: int = 1
    crops: int = 1

    def described(self) -> dict[str, Any]:
        """For a protocol; what has its default value is left out, except the policy."""
        result: dict[str, Any] = {"sampling": self.policy}
        if self.policy == "fps":
            result["sampling_fps"] = self.fps
        if self.views > 1:
            result["views"] = self.views
        if self.crops > 1:
            result["crops"] = self.crops
        return result


def segment_indices(
    num_stored: int, num_frames: int, rng: np.random.Generator | None, view: int = 0, views: int = 1
) -> Int[np.ndarray, " {num_frames}"]:
    """One frame from each of `num_frames` equal segments of a clip, as in TSN and CoTrain.

    Args:
      num_stored: frames of the clip; if they are fewer than `num_frames`, some are taken more than once.
      num_frames: frames wanted.
      rng: draws a frame from each segment (training); None: the middle one (evaluation).
      view, views: without `rng`, the frame at (view + 1/2) / views of each segment; of one view, the middle.

    Returns:
      ascending indices, int64.

    Raises:
      ValueError: a number below 1.
    """
    if num_stored < 1 or num_frames < 1:
        raise ValueError(f"cannot choose {num_frames} of {num_stored} frames")
    steps = np.arange(num_frames)
    low = steps * num_stored // num_frames
    high = np.maximum((steps + 1) * num_stored // num_frames, low + 1)  # exclusive
    return low + (2 * view + 1) * (high - low) // (2 * views) if rng is None else rng.integers(low, high)


def inclusive_indices(num_stored: int, num_frames: int) -> Int[np.ndarray, " {num_frames}"]:
    """Evenly spaced frames from the first to the last; a single one is the first.

    Rounded by NumPy's `linspace`, as in the references: where the quotient is whole, it can be the frame before it.

    Returns:
      ascending indices, int64; if the clip has fewer frames, some are taken more than once.

    Raises:
      ValueError: a number below 1.
    """
    if num_stored < 1 or num_frames < 1:
        raise ValueError(f"cannot choose {num_frames} of {num_stored} frames")
    return np.linspace(0, num_stored - 1, num_frames, dtype=np.int64)


def sampled_times(duration: float, num_frames: int, sampling: Sampling) -> list[Float64[np.ndarray, " _"]]:
    """The times of the frames in seconds from the clip's start, of each view; the picture shown then is meant.

    Args:
      duration: of the clip, in seconds.
      num_frames: frames of a view; the most, at a rate.
      sampling: a policy of times, so not "linspace_inclusive", which counts pictures.

    Returns:
      ascending times; at a rate as many as the clip has, `num_frames` at most and one at least.

    Raises:
      ValueError: another policy.
    """
    if sampling.policy == "linspace_inclusive":
        raise ValueError("linspace_inclusive counts pictures: inclusive_indices")
    if sampling.policy == "segment_middle":
        step = duration / num_frames
        return [(np.arange(num_frames) + (view + 0.5) / sampling.views) * step for view in range(sampling.views)]
    return [_times_at_rate(duration, num_frames, sampling, view) for view in range(sampling.views)]


def _times_at_rate(duration: float, num_frames: int, sampling: Sampling, view: int) -> Float64[np.ndarray, " _"]:
    shift = view / sampling.views
    count = max(1, math.ceil(duration * sampling.fps - shift - 1e-6))  # a picture at the very end would be after it
    steps = np.arange(count) if count <= num_frames else inclusive_indices(count, num_frames)
    return np.minimum((steps + shift) / sampling.fps, duration)


def stored_indices(
    stored: int, seconds: Sequence[float], num_frames: int, sampling: Sampling
) -> list[Int[np.ndarray, " _"]]:
    """The same of a clip of which only some frames are left, as in shards: indices of each view.

    Args:
      stored: number of stored frames.
      seconds: their times, which only the policy "fps" uses. They are taken as the middles of equal parts of the clip,
        which they are in shards, and of them the nearest to each wanted time is chosen.
      num_frames, sampling: as in `sampled_times`, for any policy.

    Returns:
      ascending indices, int64; an index can occur more than once.

    Raises:
      ValueError: no stored frame; at a rate, times of another number of frames, or that do not ascend.
    """
    if sampling.policy == "segment_middle":
        return [segment_indices(stored, num_frames, None, view, sampling.views) for view in range(sampling.views)]
    if sampling.policy == "linspace_inclusive":
        return [inclusive_indices(stored, num_frames)]
    if stored < 2:
        return [segment_indices(stored, 1, None)] * sampling.views
    held = np.asarray(seconds, np.float64)
    if len(held) != stored or not np.all(np.diff(held) > 0) or not np.isfinite(held).all():
        raise ValueError(f"its {stored} frames need as many times, one after the other")
    part = (held[-1] - held[0]) / (stored - 1)
    wanted = sampled_times(float(part * stored), num_frames, sampling)
    return [np.searchsorted((held[1:] + held[:-1]) / 2, held[0] - part / 2 + times, side="right") for times in wanted]
