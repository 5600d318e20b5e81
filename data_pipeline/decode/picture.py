"""A decoded picture as a player shows it: upright, with square pixels, RGB; scaled down, or as the square of a model.

For storing, FFmpeg scales. For a model, Pillow scales the whole picture, as the models' own preprocessing does: another
scaler, or two in a row, give values that differ by up to 30 of 255 in single pixels.
"""

import dataclasses
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

from data_pipeline.decode.colours import FORMAT, other_colours
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.media_paths import VideoRejected
from harvest_jax.pixels.square import for_decoder

# Antialiased bicubic, as for CLIP (56 dB PSNR against Pillow). Without the two flags, pictures that need no scaling are
# 1.2 of 255 too dark. Planar output (gbrp) gives the same values as rgb24 in 1.2 instead of 2.9 ms (960 x 540 to
# 455 x 256), and in 0.55 instead of 1.35 ms (456 x 256, not scaled).
_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_FORMAT = "gbrp"


@dataclasses.dataclass(frozen=True)
class DisplayGeometry:
    """How a coded picture is converted to the picture that a player shows; the steps are in this order.

    Attributes:
      width, height: scale to this size, in pixels.
      swap: then exchange rows and columns.
      flip_x: then mirror left to right.
      flip_y: then mirror top to bottom.
      shown_width, shown_height: size that a player shows, without scaling down.
    """

    width: int
    height: int
    swap: bool
    flip_x: bool
    flip_y: bool
    shown_width: int
    shown_height: int


def display_geometry(frame: VideoFrame, pixel_aspect: Fraction, spec: DecodeSpec) -> DisplayGeometry:
    """The geometry of a video, from its first picture and the rotation matrix that phones store with it.

    Args:
      frame: the first picture.
      pixel_aspect: width over height of a pixel; 0 if the file does not have it.
      spec: size of the frames, limits.

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
    """swap, flip_x and flip_y, from the display matrix (a b u; c d v; x y w), 16.16 fixed-point integers.

    A point of the coded picture is shown at x' = a x + c y, y' = b x + d y. Angles are rounded to quarter turns.
    """
    matrix = cast(Any, frame.side_data).get("DISPLAYMATRIX")  # PyAV's type stubs know only motion vectors
    if matrix is None:
        return False, False, False
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(matrix), np.int32)[:5])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


class PictureReader:
    """Scales and turns the pictures of one video; reuses FFmpeg's scaler.

    Attributes:
      converted: a picture's colours were not those of BT.709 or BT.601.
    """

    def __init__(self, geometry: DisplayGeometry, spec: DecodeSpec):
        self.geometry, self.spec, self.converted = geometry, spec, False
        self._reformatter = VideoReformatter()

    def read(self, frame: VideoFrame) -> UInt8[np.ndarray, "H W 3"]:
        """The picture as a player shows it, or as `spec.fit` requires.

        Raises:
          VideoRejected: its colour format cannot be converted to RGB.
        """
        geometry, colours = self.geometry, other_colours(frame)
        if colours is not None:
            frame.colorspace = colours.matrix
        try:
            scaled = self._reformatter.reformat(
                frame,
                geometry.width,
                geometry.height,
                _FORMAT if colours is None else FORMAT,
                interpolation=_SCALING,
                threads=1,
            )
        except av.FFmpegError as error:
            raise VideoRejected("unsupported colours: its pictures cannot be converted to RGB") from error
        picture = scaled.to_ndarray()
        if colours is not None:
            picture, self.converted = colours.to_bt709(picture), True
        if geometry.swap:
            picture = picture.swapaxes(0, 1)
        if geometry.flip_x:
            picture = picture[:, ::-1]
        if geometry.flip_y:
            picture = picture[::-1]
        if self.spec.fit:
            return for_decoder(picture, self.spec.short_side, self.spec.fit)
        return np.ascontiguousarray(picture)
