"""Frames of an evaluation's clips: decoded from video files, or read from shards."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from harvest_jax.machine import available_cores

Frames = UInt8[np.ndarray, "t s s 3"]


@dataclasses.dataclass(frozen=True)
class VideoSpan:
    """One video, or the part of it from `start` to `end` in seconds. For clips of shards `video` is the record's id."""

    video: str
    start: float | None = None
    end: float | None = None


@dataclasses.dataclass(frozen=True)
class ShardReader:
    """Frames from shards.

    Attributes:
      shards, split: where the records are.
      ids: clip number by row id; a clip's frames may be stored under the id of any of its rows.
      count: number of clips.
    """

    shards: str
    split: str
    ids: dict[str, int]
    count: int

    def __call__(self, num_frames: int, image_size: int, resize: str) -> Iterator[tuple[int, Frames | str]]:
        """See `EvaluationSet.reader`."""
        from data_pipeline.shards.rejects import read_rejects
        from harvest_jax.input.pipeline import evaluation_clips

        seen: set[int] = set()
        for record, frames in evaluation_clips(self.shards, self.split, num_frames, image_size, resize):
            number = self.ids.get(record.id)
            if number is not None and number not in seen:
                seen.add(number)
                yield number, frames
        rejects = read_rejects(Path(self.shards), self.split)
        reasons = {self.ids[row_id]: reason for row_id, _, reason in rejects if row_id in self.ids}
        for number in range(self.count):
            if number not in seen:
                yield number, reasons.get(number, f"not in split {self.split} of the shards")


@dataclasses.dataclass(frozen=True)
class VideoReader:
    """Frames from video files, decoded by worker processes; a damaged file can cost one clip but not the evaluation.

    Attributes:
      root: folder that the videos' paths start from.
      clips: what to decode.
      workers: processes; 0: one for each CPU core.
    """

    root: Path
    clips: tuple[VideoSpan, ...]
    workers: int

    def __call__(self, num_frames: int, image_size: int, resize: str) -> Iterator[tuple[int, Frames | str]]:
        """See `EvaluationSet.reader`."""
        from data_pipeline.decode.pool import Span, VideoDecoder
        from data_pipeline.media_paths import VideoRejected, resolve_below
        from harvest_jax.pixels.square import prepare_clip

        spans: dict[int, Span] = {}
        for number, clip in enumerate(self.clips):
            try:
                spans[number] = (resolve_below(str(self.root), clip.video), clip.start, clip.end)
            except VideoRejected as fault:
                yield number, fault.reason
        with VideoDecoder(num_frames, image_size, self.workers or available_cores(), fit=resize) as decoder:
            for number, frames in zip(spans, decoder.decode_all(spans.values()), strict=True):
                if isinstance(frames, VideoRejected):
                    yield number, frames.reason
                else:
                    yield number, prepare_clip(frames, num_frames, image_size, resize)
