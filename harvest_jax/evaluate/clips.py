"""The clips that an evaluation is over: a manifest of videos, shards, or a manifest whose frames lie in shards.

The set is fixed before anything is read. A clip that cannot be read keeps its place and is reported with its reason:
leaving it out would shrink the gallery, putting another in its place would change the question.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from harvest_jax.errors import DataError
from harvest_jax.evaluate.results import digest
from harvest_jax.evaluate.settings import DataSettings
from harvest_jax.machine import available_cores

Frames = UInt8[np.ndarray, "t s s 3"]


@dataclasses.dataclass(frozen=True)
class Clip:
    """One video, or a span of it in seconds."""

    video: str
    start: float | None = None
    end: float | None = None


@dataclasses.dataclass(frozen=True)
class Sample:
    """One row: what is said or asked about a clip (its number in the set)."""

    id: str
    clip: int
    captions: tuple[str, ...]
    extra: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """Rows and clips; several rows may be about one clip.

    Attributes:
      name: file or folder name.
      kind: "manifest", "shards", or "manifest over shards".
      split: as asked for; "" for all.
      samples: in the order of the file.
      clips: each once, in order of first mention.
      reader: (num_frames, image_size, resize) -> (clip number, square frames or the reason why there are none) of every
        clip, each once, in any order.
      unstored: rows that were rejected when the shards were made and that no manifest here names: the set lacks them.
    """

    name: str
    kind: str
    split: str
    samples: tuple[Sample, ...]
    clips: tuple[Clip, ...]
    reader: Callable[[int, int, str], Iterator[tuple[int, Frames | str]]]
    unstored: int = 0

    @property
    def digest(self) -> str:
        """sha256 over the rows: ids, clips, captions and all other columns, but no folder names."""
        return digest(
            [
                [sample.id, dataclasses.astuple(self.clips[sample.clip]), sample.captions, sample.extra]
                for sample in self.samples
            ]
        )

    def frames(self, num_frames: int, image_size: int, resize: str) -> Iterator[tuple[int, Frames | str]]:
        """Every clip's number with its frames uint8 [num_frames, image_size, image_size, 3], or why there are none.

        `resize` says how pictures become squares: the model's `Preprocessing.resize`.

        Raises:
          DataError: the reader left a clip out or gave one twice.
        """
        seen = np.zeros(len(self.clips), bool)
        for number, frames in self.reader(num_frames, image_size, resize):
            if seen[number]:
                raise DataError(f"{self.name}: clip {number} ({self.clips[number].video}) came twice")
            seen[number] = True
            yield number, frames
        if not seen.all():
            raise DataError(f"{self.name}: {int(np.sum(~seen))} of {len(seen)} clips never came")


def open_set(data: DataSettings) -> EvaluationSet:
    """The evaluation set that the settings name.

    Raises:
      DataError: the manifest or the shards cannot be used, or a row of the manifest is broken (a score over the other
        rows would be no score of this set).
    """
    if not data.manifest:
        return _from_shards(data)
    from data_pipeline.manifest.read import read_manifest
    from data_pipeline.sources.entry import WHOLE

    path = Path(data.manifest)
    manifest = read_manifest(path, data.root or None, data.split or None)
    if manifest.rejects:
        first = manifest.rejects[0]
        raise DataError(
            f"{path}: {len(manifest.rejects)} rows cannot be used, the first: {first.id}: {first.reason}; "
            "mend or remove them"
        )
    if any(row.place != WHOLE for row in manifest.rows):
        raise DataError(f"{path} holds packed clips, and scores are of video files: make shards of it (harvest shards)")
    numbers: dict[Clip, int] = {}
    samples = []
    ids: dict[str, int] = {}
    reader: _ShardReader | _VideoReader
    for row in manifest.rows:
        number = numbers.setdefault(Clip(row.video, row.start, row.end), len(numbers))
        samples.append(Sample(row.id, number, row.captions, row.extra))
        ids[row.id] = number
    clips = tuple(numbers)
    if data.shards:
        kind, reader = "manifest over shards", _ShardReader(data, ids, len(clips))
    else:
        kind, reader = "manifest", _VideoReader(manifest.root, clips, data.workers)
    return EvaluationSet(path.name, kind, data.split, tuple(samples), clips, reader)


def _from_shards(data: DataSettings) -> EvaluationSet:
    from data_pipeline.shards.shard_format import open_shards, parse

    shards = open_shards(data.shards, data.split)
    if not len(shards):
        raise DataError(f"split {data.split!r} of {data.shards} has no clips")
    records = (parse(shards[number]) for number in range(len(shards)))
    samples = tuple(
        Sample(record.id, number, tuple(record.captions), record.extra) for number, record in enumerate(records)
    )
    clips = tuple(Clip(sample.id) for sample in samples)
    ids = {sample.id: sample.clip for sample in samples}
    if len(ids) < len(samples):
        raise DataError(f"{data.shards}: {len(samples) - len(ids)} ids of split {data.split} are there more than once")
    reader = _ShardReader(data, ids, len(clips))
    unstored = len(_rejected(data).keys() - ids.keys())
    return EvaluationSet(Path(data.shards).name, "shards", data.split, samples, clips, reader, unstored)


def _rejected(data: DataSettings) -> dict[str, str]:
    """Id and reason of what `harvest shards` could not use for this split."""
    path = Path(data.shards) / f"rejects-{data.split}.tsv"
    if not path.is_file():
        return {}
    rows = [line.split("\t") for line in path.read_text("utf-8").splitlines()[1:]]  # id, video, reason
    return {row[0]: row[-1] for row in rows}


@dataclasses.dataclass(frozen=True)
class _ShardReader:
    """Frames stored under the id of any row that is about the clip."""

    data: DataSettings
    ids: dict[str, int]
    count: int

    def __call__(self, num_frames: int, image_size: int, resize: str) -> Iterator[tuple[int, Frames | str]]:
        from harvest_jax.input.pipeline import evaluation_clips

        seen: set[int] = set()
        for record, frames in evaluation_clips(self.data.shards, self.data.split, num_frames, image_size, resize):
            number = self.ids.get(record.id)
            if number is not None and number not in seen:
                seen.add(number)
                yield number, frames
        rejected = {self.ids[name]: reason for name, reason in _rejected(self.data).items() if name in self.ids}
        for number in range(self.count):
            if number not in seen:
                yield number, rejected.get(number, f"not in split {self.data.split} of the shards")


@dataclasses.dataclass(frozen=True)
class _VideoReader:
    """Frames decoded from the video files, in worker processes that may be killed."""

    root: Path
    clips: tuple[Clip, ...]
    workers: int

    def __call__(self, num_frames: int, image_size: int, resize: str) -> Iterator[tuple[int, Frames | str]]:
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
            for number, decoded in zip(spans, decoder.decode_all(spans.values()), strict=True):
                if isinstance(decoded, VideoRejected):
                    yield number, decoded.reason
                else:
                    yield number, prepare_clip(decoded, num_frames, image_size, resize)
