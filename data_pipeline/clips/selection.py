"""Which clips are worth keeping: not black, not still, not nearly the same as another."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float32

from data_pipeline.clips.limits import BLACK, DUPLICATE, STILL


@dataclasses.dataclass
class Selection:
    """Decides about one clip after the other; the first of several that are nearly the same is kept.

    Attributes:
      black: a clip whose brightness is below this (0 to 255) is dropped.
      still: one whose pictures change by less than this (0 to 255, the mean of two thumbnails 0.25 s apart) is dropped.
      duplicate: one that differs by less than this (0 to 255, the mean over three small pictures) from a clip that was
        kept, of any video, is dropped. 0 keeps all. Pieces of one scene are not compared with each other.
    """

    black: float = BLACK
    still: float = STILL
    duplicate: float = DUPLICATE

    def __post_init__(self) -> None:
        """Begin without clips."""
        self._kept = _Rows()
        self._scene: Any = None
        self._pieces: list[Float32[np.ndarray, " N"]] = []  # kept, of this scene

    def reason(self, clip: dict[str, Any], scene: Any) -> str | None:
        """Why a clip of `scenes.scan` is dropped, in the form "kind: detail"; None: it is kept.

        Args:
          clip: one after the other, in their order.
          scene: what names the scene that it is of, or a piece of.
        """
        if scene != self._scene:
            for piece in self._pieces:
                self._kept.add(piece)
            self._scene, self._pieces = scene, []
        if clip["brightness"] < self.black:
            return f"black: brightness {clip['brightness']:.1f}"
        if clip["change"] < self.still:
            return f"still: change {clip['change']:.2f}"
        found = np.frombuffer(bytes.fromhex(clip["signature"]), np.uint8).astype(np.float32)
        nearest = self._kept.nearest(found, self.duplicate)
        if nearest is not None:
            return f"duplicate: differs by {nearest:.1f} from a clip before it"
        self._pieces.append(found)
        return None


class _Rows:
    """Signatures, compared by the mean difference of their values; most are ruled out by the means of a few values."""

    def __init__(self) -> None:
        self._rows: list[Float32[np.ndarray, " N"]] = []
        self._means = np.empty((64, 8), np.float32)

    def add(self, row: Float32[np.ndarray, " N"]) -> None:
        if len(self._rows) == len(self._means):
            self._means = np.concatenate([self._means, np.empty_like(self._means)])
        self._means[len(self._rows)] = _means(row)
        self._rows.append(row)

    def nearest(self, row: Float32[np.ndarray, " N"], within: float) -> float | None:
        """The least difference to a row before, if it is below `within`."""
        # The mean of differences is at least the mean of the differences of means.
        coarse = np.abs(self._means[: len(self._rows)] - _means(row)).mean(axis=1)
        differences = [float(np.abs(self._rows[near] - row).mean()) for near in np.flatnonzero(coarse < within)]
        return min((difference for difference in differences if difference < within), default=None)


def _means(row: Float32[np.ndarray, " N"]) -> Float32[np.ndarray, " 8"]:
    """Of each eighth of a row."""
    return row.reshape(8, -1).mean(axis=1)
