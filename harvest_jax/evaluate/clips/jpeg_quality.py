"""The quality that a JPEG picture was written with, from its tables."""

import functools
import io

from PIL import Image


def jpeg_quality(jpeg: bytes) -> int | None:
    """The quality, 1 to 100, that libjpeg's tables of this picture belong to; None if they are others."""
    return _qualities().get(_tables(jpeg))


@functools.cache
def _qualities() -> dict[tuple[tuple[int, ...], ...], int]:
    found = {}
    for quality in range(1, 101):
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
        found[_tables(file.getvalue())] = quality
    return found


def _tables(jpeg: bytes) -> tuple[tuple[int, ...], ...]:
    with Image.open(io.BytesIO(jpeg)) as picture:
        tables = getattr(picture, "quantization", {})
    return tuple(tuple(tables[number]) for number in sorted(tables))
