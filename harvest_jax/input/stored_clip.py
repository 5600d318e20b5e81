"""The chosen frames of a stored clip: their size, and their pixels, whole or only in the wanted tiles."""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, UInt8

from data_pipeline.shards.shard_format import check_frame_size, decode_frame, frame_size
from harvest_jax.input.jpeg_tiles import TILE, decode_tiles, read_tiling

_MAX_SHARE = 0.6  # of the tiles; above it whole frames are faster to decode


class StoredClip:
    """Frames of one record, for training.

    Attributes:
      height, width: of each frame, in pixels.
      tiles: frames, and rows and columns of tiles of `TILE` pixels in each.
    """

    def __init__(self, jpegs: Sequence[bytes]):
        """Raises ValueError if the first of them is not a JPEG, or of a size that no stored frame has."""
        self._jpegs = jpegs
        self._tiling = read_tiling(jpegs)
        if self._tiling is not None:
            self.height, self.width = self._tiling.height, self._tiling.width
            check_frame_size(self.height, self.width)
        else:
            with _with_frame_number(0):
                self.height, self.width = frame_size(jpegs[0])
        self.tiles = len(jpegs), -(-self.height // TILE), -(-self.width // TILE)

    def frames(self) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """Whole frames, one after the other.

        Raises:
          ValueError: one is not a JPEG, or of another size than the first.
        """
        for number, jpeg in enumerate(self._jpegs):
            with _with_frame_number(number):
                frame = decode_frame(jpeg, fastupsample=True)
            if frame.shape[:2] != (self.height, self.width):
                raise ValueError(f"frame {number} is {frame.shape}, another is {self.height} x {self.width}")
            yield frame

    def frames_with(self, wanted: Bool[np.ndarray, "T rows columns"]) -> Iterator[UInt8[np.ndarray, "H2 W2 3"]]:
        """Frames with correct pixels in the wanted tiles, equal to those of `frames`, for less work.

        They may be larger than the clip by less than a tile. A frame may reuse the memory of the one before it.

        Raises:
          ValueError: as `frames`.
        """
        if self._tiling is None or np.count_nonzero(wanted) > _MAX_SHARE * wanted.size:
            return self.frames()
        return decode_tiles(self._tiling, self._jpegs, wanted)


@contextlib.contextmanager
def _with_frame_number(number: int) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"frame {number} cannot be read as JPEG ({error})") from error
