"""What to take from a video, and the limits beyond which a video is refused."""

import dataclasses

from harvest_jax.errors import ConfigError

TIME_LIMIT = 60.0  # seconds of processor time to decode one clip


@dataclasses.dataclass(frozen=True)
class DecodeSpec:
    """Frames to take from a clip, their size, and limits.

    Attributes:
      num_frames: frames, at the middles of as many equal parts of the clip; a clip with fewer different frames gives
        fewer.
      short_side: pixels. Without `fit`: frames are scaled down so that the shorter side has this length; smaller
        videos keep their size. With `fit`: the side of the square, or the shorter side.
      fit: "" to store frames; "crop" or "squash" (a model's `Preprocessing.resize`) to make each whole frame the square
        that the model sees, by `harvest_jax.pixels.square.fit`; "shorter" to scale it as "crop" does without cutting
        it, for several squares of it.
      min_frames: clips with fewer different frames are rejected.
      max_bytes: of the file.
      max_side, max_pixels: of a coded picture, in pixels; 8K has 33 million. A JPEG file may have eight times the side,
        because it can be decoded at a part of its size.
      max_aspect: longer side over shorter side.
      max_seconds: of the file.
      max_packets: pictures between the first and the last wanted one, where these are less than 10 s apart.
      max_held_bytes: of compressed frames that are kept in memory; with more they are read twice.
    """

    num_frames: int = 16
    short_side: int = 256
    fit: str = ""
    min_frames: int = 1
    max_bytes: int = 4 << 30
    max_side: int = 8192
    max_pixels: int = 36_000_000
    max_aspect: float = 10.0
    max_seconds: float = 12 * 3600.0
    max_packets: int = 200_000
    max_held_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
          ConfigError: a number out of its range, or an unknown `fit`.
        """
        ranges = {"num_frames": (1, 1024), "short_side": (16, 2048), "min_frames": (1, self.num_frames)}
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name}={getattr(self, name)} is outside {low}..{high}")
        if self.fit not in ("", "crop", "squash", "shorter"):
            raise ConfigError(f"fit={self.fit!r}: it must be 'crop', 'squash', 'shorter' or empty")
