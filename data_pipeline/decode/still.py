"""Decode one untrusted picture: a JPEG, PNG or WebP, upright, RGB, scaled like a video.

The size in its header is checked before anything is decoded. Of an animated PNG or WebP the first picture is taken.
Transparent pixels are blended with white; 16 bits per colour are reduced to 8.
"""

import warnings
from io import BufferedIOBase, BytesIO
from typing import IO, cast

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.decode.video_file import check_size
from data_pipeline.media_paths import VideoRejected
from harvest_jax.pixels.square import for_decoder

_FORMATS = ("JPEG", "PNG", "WEBP")
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
_PLAIN = ("RGB", "L", "1", "P", "CMYK", "YCbCr")


def is_still(head: bytes) -> bool:
    """Whether a file is a picture, by its signature; `head` are its first 12 bytes or more."""
    return head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def read_still(file: BufferedIOBase, spec: DecodeSpec) -> tuple[UInt8[np.ndarray, "H W 3"], int, int]:
    """The picture, scaled as `spec` requires, and its width and height before scaling.

    Raises:
      VideoRejected: it cannot be used; `reason` says why.
    """
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about size, which is checked here, and metadata
            with Image.open(cast(IO[bytes], file), formats=_FORMATS) as image:
                _check_shape(image, spec)
                upright = _upright(_rgb(image), image)
    except VideoRejected:
        raise
    except MemoryError as error:
        raise VideoRejected("too much memory: the picture needs more than a decoder may use") from error
    except Image.DecompressionBombError as error:
        raise VideoRejected("bad picture size: its header claims more than can be decoded safely") from error
    except Exception as error:  # for damaged files Pillow raises a dozen kinds of errors
        raise VideoRejected("damaged: begins like a picture, but cannot be decoded") from error
    width, height = upright.size
    if spec.fit:
        return for_decoder(np.asarray(upright), spec.short_side, spec.fit), width, height
    scale = min(1.0, spec.short_side / min(width, height))
    if scale < 1.0:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        upright = upright.resize(size, Image.Resampling.BICUBIC)
    return np.array(upright), width, height


def _check_shape(image: Image.Image, spec: DecodeSpec) -> None:
    width, height = image.size
    check_size(width, height, spec)
    if max(width, height) > spec.max_aspect * min(width, height):
        raise VideoRejected(f"bad picture size: {width} x {height} is too long and narrow")


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
