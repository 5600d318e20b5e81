"""Windows of many files, decoded in worker processes: each file in one pass, several files at once."""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipeline.decode.pool import ClosedAtItsEnd, DecoderPool
from data_pipeline.decode.spec import TIME_LIMIT, DecodeSpec
from data_pipeline.decode.window import Window
from data_pipeline.decode.window_rule import WindowRule


class FileWindow(NamedTuple):
    """A window of one of several files, or the end of a file.

    Attributes:
      number: of the file.
      window: None at the end of the file.
      reason: at the end: why nothing more of the file can be used; empty if all was read.
    """

    number: int
    window: Window | None
    reason: str = ""


class WindowDecoder(ClosedAtItsEnd):
    """The windows of files, decoded in worker processes, each file in one pass; of several files at once.

    Args:
      num_frames, short_side, fit: those of `DecodeSpec`; `fit` is not empty.
      rule: how files are cut into windows.
      workers: processes.
      time_limit: seconds of processor time for one window.
    """

    def __init__(
        self,
        num_frames: int,
        short_side: int,
        fit: str,
        rule: WindowRule,
        workers: int = 1,
        time_limit: float = TIME_LIMIT,
    ):
        self.spec = DecodeSpec(num_frames=num_frames, short_side=short_side, fit=fit)
        self.rule = rule
        self._pool = DecoderPool(workers, time_limit, modules=("data_pipeline.decode.windows",))

    def close(self) -> None:
        """End the workers."""
        self._pool.close()

    def decode_all(self, paths: Iterable[str | Path]) -> Iterator[FileWindow]:
        """The windows of each file, ascending, and its end; those of several files in turns."""
        what = {"spec": dataclasses.asdict(self.spec), "windows": dataclasses.asdict(self.rule)}
        for number, result in self._pool.stream({"path": os.fspath(path), **what} for path in paths):
            header = result.header
            if "more" in header:
                frames = np.frombuffer(result.payload, np.uint8).reshape(header["shape"])
                yield FileWindow(number, Window(header["start"], header["end"], frames))
            else:
                yield FileWindow(number, None, header.get("rejected", ""))
