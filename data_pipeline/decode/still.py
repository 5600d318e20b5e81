"""Decode one untrusted picture: a JPEG, PNG, WebP or AVIF, upright, RGB, scaled like a video.

The size in its header is checked before anything is decoded. A JPEG beyond the limits (phones have 48 to 200 million
pixels) is decoded at a half, a quarter or an eighth of its size, in as much memory as one within them. Of an animated
PNG the first picture is taken. Transparent pixels are blended with white; 16 bits per colour are reduced to 8.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase, BytesIO
from typing import IO, cast

import numpy as np
from jaxtyping import UInt8
from PIL import Image, JpegImagePlugin

from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.decode.video_file import check_size
from data_pipeline.media_paths import VideoRejected
from harvest_jax.pixels.square import for_decoder

HEAD = 32  # bytes from the start of a file that tell what it is
_FORMATS = ("PNG", "WEBP", "AVIF")
_JPEG = b"\xff\xd8\xff"
_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
_EIGHTH = 8  # libjpeg's smallest size
_PLAIN = ("RGB", "L", "1", "P", "CMYK", "YCbCr")


def is_still(head: bytes) -> bool:
    """Whether a file is a single picture, by its signature; `head` are its first `HEAD` bytes.

    Of AVIF files those that FFmpeg plays as a video say so.
    """
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP" and not is_animated(head)
    avif = head[4:12] == b"ftypavif" or (head[4:12] == b"ftypmif1" and b"avif" in head)
    return head.startswith((_JPEG, b"\x89PNG\r\n\x1a\n")) or webp or avif


def is_animated(head: bytes) -> bool:
    """Whether a file is an animated WebP."""
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) > 20 and bool(head[20] & 2)


def refuse_heic(head: bytes) -> None:
    """Refuse a HEIC picture: FFmpeg would take one of its tiles for a video.

    Raises:
      VideoRejected: `head`, the first `HEAD` bytes of a file that is no AVIF, are those of one.
    """
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"heim", b"heis", b"mif1"):
        raise VideoRejected("not a video: a HEIC picture; convert it to JPEG (the video of a Live Photo is its .mov)")


def read_still(file: BufferedIOBase, spec: DecodeSpec) -> tuple[UInt8[np.ndarray, "H W 3"], int, int]:
    """The picture, scaled as `spec` requires, and its width and height before scaling.

    Raises:
      VideoRejected: it cannot be used; `reason` says why.
    """
    with open_pictures(file, spec) as image:
        width, height = image.size if _turn(image) not in _SIDEWAYS else image.size[::-1]
        _fit_limits(image, spec)
        return finished(image, spec), width, height


@contextmanager
def open_pictures(file: BufferedIOBase, spec: DecodeSpec) -> Iterator[Image.Image]:
    """Open a picture or an animation; its header is checked against the limits.

    Raises:
      VideoRejected: it cannot be used, or an error of Pillow was raised in the block.
    """
    file.seek(0)
    jpeg = file.read(3) == _JPEG
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about size, which is checked here, and metadata
            # Not by Image.open, which refuses what can be decoded at an eighth of its size.
            source = cast(IO[bytes], file)
            opened = JpegImagePlugin.JpegImageFile(source) if jpeg else Image.open(source, formats=_FORMATS)
            with opened as image:
                _check_shape(image, spec)
                yield image
    except VideoRejected:
        raise
    except MemoryError as error:
        raise VideoRejected("too much memory: the picture needs more than a decoder may use") from error
    except Image.DecompressionBombError as error:
        raise VideoRejected("bad picture size: its header claims more than can be decoded safely") from error
    except Exception as error:  # for damaged files Pillow raises a dozen kinds of errors
        raise VideoRejected("damaged: begins like a picture, but cannot be decoded") from error


def finished(image: Image.Image, spec: DecodeSpec) -> UInt8[np.ndarray, "H W 3"]:
    """The picture that is opened, upright and scaled as `spec` requires."""
    upright = _upright(_rgb(image), image)
    width, height = upright.size
    if spec.fit:
        return for_decoder(np.asarray(upright), spec.short_side, spec.fit)
    scale = min(1.0, spec.short_side / min(width, height))
    if scale < 1.0:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        upright = upright.resize(size, Image.Resampling.BICUBIC)
    return np.array(upright)


def _check_shape(image: Image.Image, spec: DecodeSpec) -> None:
    width, height = image.size
    part = _EIGHTH if image.format == "JPEG" else 1
    check_size(-(-width // part), -(-height // part), spec, f"{width} x {height}")
    if max(width, height) > spec.max_aspect * min(width, height):
        raise VideoRejected(f"bad picture size: {width} x {height} is too long and narrow")


def _fit_limits(image: Image.Image, spec: DecodeSpec) -> None:
    """Have a JPEG decoded at the largest of its sizes that is within the limits."""
    width, height = image.size
    part = 1
    while part < _EIGHTH and (max(width, height) > spec.max_side * part or width * height > spec.max_pixels * part**2):
        part *= 2
    if part > 1:
        image.draft("RGB", (width // part, height // part))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert(
            "RGB"
        )  # Pillow's own conversion clips at 255
    if image.mode in ("RGBA", "LA", "PA") or (image.mode in _PLAIN and "transparency" in image.info):
        pixels = image.convert("RGBA")
        white = Image.new("RGBA", pixels.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, pixels).convert("RGB")
    if image.mode not in _PLAIN:
        raise VideoRejected(f"unsupported colours: the picture has the mode {image.mode}")
    return image.convert("RGB")


def is_turned(jpeg: bytes) -> bool:
    """Whether the EXIF data of a valid JPEG says that it must be turned."""
    with Image.open(BytesIO(jpeg), formats=["JPEG"]) as image:
        return _turn(image) is not None


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF data is ignored
        return None


def _upright(picture: Image.Image, source: Image.Image) -> Image.Image:
    turn = _turn(source)
    return picture if turn is None else picture.transpose(turn)
