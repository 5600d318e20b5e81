"""Decoding only those parts of stored frames that contain kept patches.

`harvest shards` writes frames as JPEG with a restart marker after every unit of 16 x 16 pixels (a tile). A tile does
not depend on its neighbours, so any selection of tiles, concatenated after the frame's header, is a JPEG again. The
tiles with kept patches of a clip (a fifth of all at 90 % dropped) are made into one such picture and decoded by one
call of the ordinary decoder. The pixels are bit for bit those of the whole frames decoded with the same settings.

These settings upsample colour by repetition (`fastupsample`): the usual interpolation reads across the edge of a tile.
docs/data.md has the cost in PSNR.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import simplejpeg
from jaxtyping import Bool, Shaped, UInt8

TILE = 16  # pixels: the coding unit of a JPEG with halved colour
_MAX_TILES = 65500 // TILE  # in one column: libjpeg decodes no higher picture
_RESTARTS = [bytes([0xFF, 0xD0 + number % 8]) for number in range(_MAX_TILES)]
_FRAME, _RESTART_INTERVAL, _SCAN, _END = 0xC0, 0xDD, 0xDA, b"\xff\xd9"
_ROW = np.dtype(f"V{TILE * 3}")  # the pixels of a row of a tile, copied as one element: three times as fast


@dataclasses.dataclass(frozen=True)
class Tiling:
    """The JPEG header that all frames of one clip share.

    `height` and `width` are those of a frame in pixels, `rows` and `columns` count its tiles, `size_at` is the offset
    of height and width (two bytes each) in the header.
    """

    header: bytes
    height: int
    width: int
    size_at: int

    @property
    def rows(self) -> int:
        """Of tiles."""
        return -(-self.height // TILE)

    @property
    def columns(self) -> int:
        """Of tiles."""
        return -(-self.width // TILE)


def read_tiling(jpegs: Sequence[bytes]) -> Tiling | None:
    """The common header of frames as `harvest shards` writes them; None: they must be decoded whole."""
    tiling = _read_header(jpegs[0])
    if tiling is None or not all(jpeg.startswith(tiling.header) for jpeg in jpegs):
        return None
    return tiling


def _read_header(jpeg: bytes) -> Tiling | None:
    place, restarts = 2, 0
    size: tuple[int, int, int] | None = None
    while len(jpeg) >= place + 4 and jpeg[place] == 0xFF:
        marker, length = jpeg[place + 1], int.from_bytes(jpeg[place + 2 : place + 4], "big")
        body = jpeg[place + 4 : place + 2 + length]
        if len(body) < length - 2 or length < 2:
            return None
        if marker == _FRAME and length == 17 and (body[5], body[7], body[10], body[13]) == (3, 0x22, 0x11, 0x11):
            size = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big"), place + 5
        elif marker == _RESTART_INTERVAL and length == 4:
            restarts = int.from_bytes(body, "big")
        elif marker == _SCAN:
            if size is None or 0 in size or restarts != 1:
                return None
            return Tiling(jpeg[: place + 2 + length], *size)
        place += 2 + length
    return None


def decode_tiles(
    tiling: Tiling, jpegs: Sequence[bytes], wanted: Bool[np.ndarray, "T rows columns"]
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The frames of a clip with correct pixels in the wanted tiles; other pixels are undefined.

    Args:
      tiling: of these frames.
      jpegs: T frames.
      wanted: which tiles of each.

    Yields:
      one buffer, uint8 [16 * rows, 16 * columns, 3], overwritten by the next frame: use it before.

    Raises:
      ValueError: a frame is damaged.
    """
    tiles = _cut(tiling, jpegs, wanted)
    parts = [_decode(tiling, tiles[begin : begin + _MAX_TILES]) for begin in range(0, len(tiles), _MAX_TILES)]
    pixels = parts[0] if len(parts) == 1 else np.concatenate(parts or [np.empty((0, TILE), _ROW)])
    canvas = np.empty((tiling.rows, TILE, tiling.columns), _ROW)
    by_tile = canvas.swapaxes(1, 2)
    done = 0
    for mask in wanted:
        row, column = np.nonzero(mask)
        by_tile[row, column] = pixels[done : done + len(row)]
        done += len(row)
        yield canvas.view(np.uint8).reshape(tiling.rows * TILE, tiling.columns * TILE, 3)


def _cut(tiling: Tiling, jpegs: Sequence[bytes], wanted: Bool[np.ndarray, "T rows columns"]) -> list[bytes]:
    """The bytes of the wanted tiles of all frames, in order, without their restart markers."""
    joined = b"".join(jpegs)  # one search instead of one for each frame
    ends = np.cumsum([len(jpeg) for jpeg in jpegs])
    begins = np.append(0, ends[:-1]) + len(tiling.header)
    content = np.frombuffer(joined, np.uint8)
    marks = np.flatnonzero(content[:-1] == 0xFF)  # what follows is a marker, or 0 where the byte itself is meant
    marks = marks[(content[marks + 1] & 0xF8) == 0xD0]
    first, last = np.searchsorted(marks, begins), np.searchsorted(marks, ends)  # a header may contain such bytes too
    inner = tiling.rows * tiling.columns - 1
    for number, jpeg in enumerate(jpegs):
        if last[number] - first[number] != inner or not jpeg.endswith(_END):
            found = last[number] - first[number] + 1
            raise ValueError(f"frame {number} is damaged: it has {found} tiles instead of {inner + 1}")
    marks = marks[first[:, None] + np.arange(inner)]
    chosen = wanted.reshape(len(jpegs), inner + 1)
    starts = np.concatenate([begins[:, None], marks + 2], axis=1)[chosen].tolist()
    stops = np.concatenate([marks, ends[:, None] - len(_END)], axis=1)[chosen].tolist()
    return [joined[start:stop] for start, stop in zip(starts, stops, strict=True)]


def _decode(tiling: Tiling, tiles: list[bytes]) -> Shaped[np.ndarray, "n 16"]:
    """Tiles, decoded as one picture of one column of tiles; each row of pixels is one element."""
    size = (len(tiles) * TILE).to_bytes(2, "big") + TILE.to_bytes(2, "big")
    header = tiling.header[: tiling.size_at] + size + tiling.header[tiling.size_at + 4 :]
    scan = b"".join(itertools.chain.from_iterable(zip(tiles, _RESTARTS, strict=False)))
    picture = simplejpeg.decode_jpeg(header + scan[:-2] + _END, "RGB", fastupsample=True)
    return picture.reshape(len(tiles), TILE, TILE * 3).view(_ROW)[..., 0]
