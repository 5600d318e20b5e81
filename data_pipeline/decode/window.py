"""A window of a video, decoded."""

import dataclasses

import numpy as np
from jaxtyping import UInt8


@dataclasses.dataclass(frozen=True)
class Window:
    """A window that was decoded.

    Attributes:
      start, end: seconds in the file; both 0 of a picture.
      frames: of a spec with `fit`, RGB; `num_frames` of them, a picture that is shown for long occurs more than once.
    """

    start: float
    end: float
    frames: UInt8[np.ndarray, "T S S 3"]
