"""How a video is cut into windows of time. Commands read it for their arguments, so it imports nothing slow."""

import dataclasses

from harvest_jax.errors import ConfigError

MAX_WINDOWS = 1_000_000  # of a file


@dataclasses.dataclass(frozen=True)
class WindowRule:
    """How a video is cut into windows: `seconds` long, one begins every `stride` seconds. The defaults are our choice.

    The last window ends with the file. A file that is shorter than a window and half a stride is one window.
    """

    seconds: float = 8.0
    stride: float = 4.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
          ConfigError: a number out of its range.
        """
        if not 0.1 <= self.seconds <= 3600:
            raise ConfigError(f"a window of {self.seconds:g} s is outside 0.1..3600 s")
        if not 0.1 <= self.stride <= self.seconds:
            raise ConfigError(f"a stride of {self.stride:g} s is outside 0.1 s .. the window's {self.seconds:g} s")

    def spans(self, end: float) -> list[tuple[float, float]]:
        """Start and end of each window of a file of `end` seconds, ascending."""
        steps = round((end - self.seconds) / self.stride)
        if steps < 1:
            return [(0.0, end)]
        starts = [step * self.stride for step in range(min(steps, MAX_WINDOWS))]
        return [*((start, start + self.seconds) for start in starts), (end - self.seconds, end)]
