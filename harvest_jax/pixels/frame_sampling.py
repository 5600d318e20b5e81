"""Which frames of a clip are used: one from each of several equal segments."""

import numpy as np
from jaxtyping import Int


def segment_indices(
    num_stored: int, num_frames: int, rng: np.random.Generator | None
) -> Int[np.ndarray, " {num_frames}"]:
    """One frame from each of `num_frames` equal segments of a clip, as in TSN and CoTrain.

    Args:
      num_stored: frames of the clip; if they are fewer than `num_frames`, some are taken more than once.
      num_frames: frames wanted.
      rng: draws a frame from each segment (training); None: the middle one (evaluation).

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
    return (low + high) // 2 if rng is None else rng.integers(low, high)
