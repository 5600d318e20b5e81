"""A decoded picture as the viewer sees it: upright, with square pixels, RGB; scaled down, or as a model sees it.

FFmpeg scales what is stored. What a model is shown at once is scaled by Pillow from the whole picture, as the models'
own preprocessing does: two scalers in a row, or another one, are up to 30 of 255 away from that in single pixels.
"""

import dataclasses
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.media_paths import VideoRejected
from harvest_jax.pixels.square import fit

# Antialiased bicubic, as CLIP's pictures were scaled (56 dB from Pillow's). Without the two flags, pictures that need
# no scaling come out 1.2 of 255 too dark. Planes (gbrp) instead of pixels (rgb24) give the same values in 1.2 instead
# of 2.9 ms (960 x 540 to 455 x 256) and 0.55 instead of 1.35 ms (456 x 256, not scaled).
_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_FORMAT = "gbrp"


@dataclasses.dataclass(frozen=True)
class DisplayGeometry:
    """How a coded picture becomes the one that is shown.

    It is scaled to `width` x `height`; then rows and columns change places if `swap`; then it is mirrored left to right
    or top to bottom. `shown_*` is the size that a player would show, before scaling down.
    """

    width: int
    height: int
    swap: bool
    flip_x: bool
    flip_y: bool
    shown_width: int
    shown_height: int


def display_geometry(frame: VideoFrame, pixel_aspect: Fraction, spec: DecodeSpec) -> DisplayGeometry:
    """The layout of a video from its first picture; phones write their rotation as a matrix beside it.

    Args:
      frame: the first picture.
      pixel_aspect: width over height of a pixel, 0 where the file does not say.
      spec: how large pictures may be.

    Raises:
      VideoRejected: the picture is too long and narrow.
    """
    width, height = float(frame.width), float(frame.height)
    if Fraction(1, 4) <= pixel_aspect <= 4:
        width *= float(pixel_aspect)
    if max(width, height) > spec.max_aspect * min(width, height):
        raise VideoRejected(f"bad picture size: {width:.0f} x {height:.0f} is too long and narrow")
    scale = 1.0 if spec.fit else min(1.0, spec.short_side / min(width, height))
    swap, flip_x, flip_y = _orientation(frame)
    shown = (round(width), round(height))
    shown_width, shown_height = shown[::-1] if swap else shown
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return DisplayGeometry(*size, swap, flip_x, flip_y, shown_width, shown_height)


def _orientation(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Swap, mirror left to right, mirror top to bottom, from the display matrix (a b u; c d v; x y w), 16.16 integers.

    A point of the coded picture is shown at x' = a x + c y, y' = b x + d y. Angles that are no quarter turn are
    rounded to the nearest.
    """
    matrix = cast(Any, frame.side_data).get("DISPLAYMATRIX")  # PyAV's own types know motion vectors only
    if matrix is None:
        return False, False, False
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(matrix), np.int32)[:5])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


class PictureReader:
    """Scales and turns the pictures of one video; keeps FFmpeg's scaler between them."""

    def __init__(self, layout: DisplayGeometry, spec: DecodeSpec):
        self.layout, self.spec = layout, spec
        self._reformatter = VideoReformatter()

    def read(self, frame: VideoFrame) -> UInt8[np.ndarray, "H W 3"]:
        """The picture as it is shown, or as the square that `spec.fit` asks for.

        Raises:
          VideoRejected: its colours are in a system that cannot be converted.
        """
        layout = self.layout
        try:
            scaled = self._reformatter.reformat(
                frame, layout.width, layout.height, _FORMAT, interpolation=_SCALING, threads=1
            )
        except av.FFmpegError as error:
            raise VideoRejected("unsupported colours: its pictures cannot be converted to RGB") from error
        picture = scaled.to_ndarray()
        if layout.swap:
            picture = picture.swapaxes(0, 1)
        if layout.flip_x:
            picture = picture[:, ::-1]
        if layout.flip_y:
            picture = picture[::-1]
        if self.spec.fit:
            return fit(picture, self.spec.short_side, self.spec.fit)
        return np.ascontiguousarray(picture)
