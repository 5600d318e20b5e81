"""The result of decoding a clip."""

import dataclasses

import numpy as np
from jaxtyping import Float64, Int, UInt8


@dataclasses.dataclass(frozen=True)
class DecodedClip:
    """The decoded frames of a clip.

    Attributes:
      frames: RGB, in order.
      seconds: position of each frame in the file.
      width, height: of the video as a player shows it (upright, with square pixels), in pixels, before scaling.
      views: the frames of each view, as numbers of `frames`; a picture that is shown at several times occurs again.
      damaged: how many frames the decoder has marked as damaged, or that depend on a marked one.
      converted: their colours were HDR or wide-gamut, see `colours`.
    """

    frames: UInt8[np.ndarray, "T H W 3"]
    seconds: Float64[np.ndarray, " T"]
    width: int
    height: int
    views: tuple[Int[np.ndarray, " _"], ...] = ()
    damaged: int = 0
    converted: bool = False
