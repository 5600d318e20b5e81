"""Colours of HDR and wide-gamut pictures as those of BT.709 that all other videos have, by the tags of the stream.

The steps, on light as a display of 1,000 cd/m2 gives it:

- The transfer function of the tag: PQ (SMPTE ST 2084), or HLG (ARIB STD-B67) with its system gamma of 1.2, so that
  203 cd/m2, the white of paper (ITU-R BT.2408), is 1. SDR keeps its own: that of sRGB, or a gamma of 2.4 (BT.1886).
- The primaries: BT.2020 or Display P3 to BT.709. What is outside is cut off.
- HDR alone, a tone curve: up to 0.3 nothing is changed. Above, the brightest of R, G and B follows a Moebius function
  that reaches 1 at 1,000 cd/m2, and the others keep their ratio to it: FFmpeg's `tonemap=mobius`.
- The transfer function of BT.709's displays, a gamma of 2.4; for SDR its own.

It is written with tables, products and roots, which are rounded alike on every machine.
"""

import dataclasses
import functools

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc
from jaxtyping import Float32, UInt8, UInt16

from data_pipeline.media_paths import VideoRejected

FORMAT = "gbrp12le"  # of the pictures that are converted
CONVERSION = "HDR and wide gamut to BT.709; white 203 and peak 1000 cd/m2; mobius 0.3"  # in an evaluation's protocol
WHITE, PEAK = 203.0, 1000.0  # cd/m2
KNEE = 0.3
_LEVELS = 4096
_STEPS = 16383  # of tables over 0..1, by the square root: dark values need more of them
_BAND = 1 << 16  # pixels that are converted at once: in floating point a large picture takes much memory
_UNSPECIFIED, _BT2020_MATRIX = 2, 9  # matrix coefficients, as FFmpeg numbers them
_OTHER_MATRICES = {14: "ICtCp", 15: "IPT-C2"}
_HDR = {int(ColorTrc.SMPTE2084): "pq", int(ColorTrc.ARIB_STD_B67): "hlg"}
_PRIMARIES = {int(ColorPrimaries.BT2020): "bt2020", int(ColorPrimaries.SMPTE432): "p3"}
_TO_BT709 = {
    "bt2020": ((1.660491, -0.587641, -0.072850), (-0.124550, 1.132900, -0.008349), (-0.018151, -0.100579, 1.118730)),
    "p3": ((1.224940, -0.224940, 0.0), (-0.042057, 1.042057, 0.0), (-0.019638, -0.078636, 1.098274)),
}
_LUMINANCE = {"bt2020": (0.2627, 0.6780, 0.0593), "p3": (0.2290, 0.6917, 0.0793), "": (0.2126, 0.7152, 0.0722)}


@dataclasses.dataclass(frozen=True)
class OtherColours:
    """Colours that are to be converted.

    Attributes:
      transfer: "pq" or "hlg"; of SDR "srgb" or "gamma".
      primaries: "bt2020", "p3", or "" for BT.709.
      matrix: the coefficients between YUV and RGB, as FFmpeg numbers them.
    """

    transfer: str
    primaries: str
    matrix: int

    @property
    def hdr(self) -> bool:
        """Whether pictures are brighter than SDR's white."""
        return self.transfer in ("pq", "hlg")

    def to_bt709(self, picture: UInt16[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """An RGB picture of 12 bits in these colours as one of 8 bits in BT.709's."""
        height, width, _ = picture.shape
        converted = np.empty((height, width, 3), np.uint8)
        rows = max(1, _BAND // width)
        for top in range(0, height, rows):
            self._convert(picture[top : top + rows], converted[top : top + rows])
        return converted

    def _convert(self, picture: UInt16[np.ndarray, "h w 3"], converted: UInt8[np.ndarray, "h w 3"]) -> None:
        light = _light(self.transfer)
        red, green, blue = (light[np.minimum(picture[..., channel], _LEVELS - 1)] for channel in range(3))
        if self.transfer == "hlg":
            weights = np.array(_LUMINANCE[self.primaries], np.float32)
            luminance = weights[0] * red + weights[1] * green + weights[2] * blue
            gain = _system_gain()[_index(luminance)]
            red, green, blue = red * gain, green * gain, blue * gain
        if self.primaries:
            rows = np.array(_TO_BT709[self.primaries], np.float32)
            red, green, blue = (row[0] * red + row[1] * green + row[2] * blue for row in rows)
        if self.hdr:
            ratio = _tone(np.maximum(np.maximum(red, green), blue))
            red, green, blue = red * ratio, green * ratio, blue * ratio
        table = _signal(self.transfer)
        for channel, values in enumerate((red, green, blue)):
            converted[..., channel] = table[_index(values)]


def other_colours(frame: VideoFrame) -> OtherColours | None:
    """The colours of a picture by its tags; None: BT.709, BT.601 or no tag, which need no conversion.

    HDR without primaries is BT.2020.

    Raises:
      VideoRejected: they are known and cannot be converted.
    """
    matrix = int(frame.colorspace)
    if matrix in _OTHER_MATRICES:
        raise VideoRejected(f"unsupported colours: {_OTHER_MATRICES[matrix]}; convert the video to BT.709 or BT.2020")
    return _other_colours(int(frame.color_trc), int(frame.color_primaries), matrix)


@functools.lru_cache(maxsize=64)
def _other_colours(trc: int, primaries: int, matrix: int) -> OtherColours | None:
    hdr = _HDR.get(trc, "")
    gamut = _PRIMARIES.get(primaries, "bt2020" if hdr and primaries == ColorPrimaries.UNSPECIFIED else "")
    if not hdr and not gamut:
        return None
    transfer = hdr or ("srgb" if trc == ColorTrc.IEC61966_2_1 else "gamma")
    return OtherColours(transfer, gamut, _BT2020_MATRIX if (matrix, gamut) == (_UNSPECIFIED, "bt2020") else matrix)


@functools.cache
def _light(transfer: str) -> Float32[np.ndarray, " levels"]:
    """Light of each level; of HLG as the camera saw it, of 0..1."""
    signal = np.arange(_LEVELS) / (_LEVELS - 1)
    if transfer == "pq":
        root = signal ** (1 / 78.84375)
        value = (
            10000 / WHITE * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
        )
    elif transfer == "hlg":
        value = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    elif transfer == "srgb":
        value = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    else:
        value = signal**2.4
    return value.astype(np.float32)


@functools.cache
def _signal(transfer: str) -> UInt8[np.ndarray, " steps"]:
    """The level of 0..255 of light, by its square root."""
    light = (np.arange(_STEPS + 1) / _STEPS) ** 2
    if transfer == "srgb":
        value = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    else:
        value = light ** (1 / 2.4)
    return np.rint(255 * value).astype(np.uint8)


@functools.cache
def _system_gain() -> Float32[np.ndarray, " steps"]:
    """HLG: light of the display over light before the camera, by the square root of its luminance."""
    return (PEAK / WHITE * (np.arange(_STEPS + 1) / _STEPS) ** (2 * 0.2)).astype(np.float32)


def _index(values: Float32[np.ndarray, "h w"]) -> UInt16[np.ndarray, "h w"]:
    """Places in a table of `_STEPS`."""
    return (np.sqrt(np.clip(values, 0, 1)) * np.float32(_STEPS) + np.float32(0.5)).astype(np.uint16)


def _tone(brightest: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Factor of the tone curve."""
    peak = PEAK / WHITE
    a = -(KNEE**2) * (peak - 1) / (KNEE**2 - 2 * KNEE + peak)
    b = (KNEE**2 - 2 * KNEE * peak + peak) / (peak - 1)
    scale = np.float32((b * b + 2 * b * KNEE + KNEE**2) / (b - a))
    value = np.maximum(brightest, np.float32(KNEE))
    return scale * (value + np.float32(a)) / ((value + np.float32(b)) * value)
