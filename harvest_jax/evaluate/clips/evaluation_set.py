"""The rows and clips that a model is evaluated on: from a manifest, from shards, from a benchmark's annotations.

Rows of a manifest or of annotations can take their frames from shards.

The set is fixed before any frame is read. A clip that cannot be read stays in the set and is reported with its reason:
without it the gallery would be smaller and the scores higher.
"""

import collections
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from harvest_jax.errors import DataError
from harvest_jax.evaluate.benchmarks.benchmark import counts
from harvest_jax.evaluate.benchmarks.locate_annotations import NONE_GIVEN, locate
from harvest_jax.evaluate.benchmarks.named import find_benchmark
from harvest_jax.evaluate.benchmarks.read_benchmark import read_files
from harvest_jax.evaluate.clips.frame_readers import Clip, FrameReader, ShardReader, VideoReader, VideoSpan, named
from harvest_jax.evaluate.clips.known_clips import KnownClips
from harvest_jax.evaluate.clips.video_files import list_videos
from harvest_jax.evaluate.settings import DataSettings
from harvest_jax.input.question_lists import each_question
from harvest_jax.pixels.frame_sampling import Sampling

_DEFAULT = Sampling()


@dataclasses.dataclass(frozen=True)
class Sample:
    """One row of the set.

    Attributes:
      id: of the row, unique.
      clip: number of the clip that the row is about.
      captions: of the clip; may be empty.
      extra: all other columns.
    """

    id: str
    clip: int
    captions: tuple[str, ...]
    extra: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """Rows and clips; several rows may be about one clip.

    Attributes:
      name: file or folder name.
      kind: "manifest", "shards", "benchmark", or one of the others "over shards".
      split: the one whose rows are used; "" if all are, or the rows name no split.
      samples: in the order of the file.
      clips: each once, in order of first mention.
      reader: of the clips' frames.
      files: what is read, by purpose: "manifest", "shards", those of a benchmark's annotations.
      notes: what a reader of a score on this set must know.
      distinct: how many clips have so many different frames, among those that `frames` gave.
      benchmark: what the protocol says of the benchmark: name, version, and whether its counts differ; may be empty.
      unstored: rows that were rejected when the shards were made and that no manifest here names: the set lacks them.
    """

    name: str
    kind: str
    split: str
    samples: tuple[Sample, ...]
    clips: tuple[VideoSpan, ...]
    reader: FrameReader
    files: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    benchmark: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    unstored: int = 0
    notes: tuple[str, ...] = ()
    distinct: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)

    def identity(self, number: int) -> list[Any]:
        """What the protocol knows a clip by: its key; if there are only shards, the digest of its stored frames.

        Call it after the frames were read.
        """
        return [self.reader.digest(number)] if self.kind == "shards" else self.clips[number].key

    @property
    def folder_field(self) -> str:
        """The config field that says where the clips are; for messages."""
        if "shards" in self.files:
            return "data.shards"
        return "data.videos" if self.benchmark else "data.root"

    def frames(
        self,
        num_frames: int,
        image_size: int,
        resize: str,
        sampling: Sampling = _DEFAULT,
        known: KnownClips | None = None,
    ) -> Iterator[tuple[int, Clip]]:
        """Every clip's number with its views uint8 [num_frames, image_size, image_size, 3], or why there are none.

        `resize` says how pictures become squares, as the model's `Preprocessing.resize`. Clips that `known` knows are
        not read.

        Raises:
          DataError: the reader left a clip out or gave one twice.
        """
        seen = np.zeros(len(self.clips), bool)
        self.distinct.clear()
        for number, frames in self.reader.read(num_frames, image_size, resize, sampling, known):
            if seen[number]:
                raise DataError(f"{self.name}: clip {number} ({self.clips[number].video}) was read twice")
            seen[number] = True
            if not isinstance(frames, str):
                self.distinct[frames.distinct] += 1
            yield number, frames
        if not seen.all():
            raise DataError(f"{self.name}: {int(np.sum(~seen))} of {len(seen)} clips were not read")

    def distinct_frames(self) -> dict[str, int | float]:
        """Least, mean and most different frames of a clip, of those that were read."""
        total = self.distinct.total()
        if not total:
            return {}
        mean = sum(number * count for number, count in self.distinct.items()) / total
        return {"min": min(self.distinct), "mean": mean, "max": max(self.distinct)}

    def by_question(self) -> "EvaluationSet":
        """The set with a row for each question, where rows have several (`input/question_lists.py`).

        Raises:
          DataError: the lists of a row do not fit together.
        """
        samples: list[Sample] = []
        for sample in self.samples:
            try:
                questions = each_question(sample.extra)
            except ValueError as error:
                raise DataError(f"{self.name}: row {sample.id}: {error}") from error
            names = [sample.id] if len(questions) == 1 else [f"{sample.id}#{i}" for i in range(1, len(questions) + 1)]
            samples += [
                dataclasses.replace(sample, id=name, extra=cells) for name, cells in zip(names, questions, strict=True)
            ]
        return dataclasses.replace(self, samples=tuple(samples))

    def column(self, name: str) -> list[str]:
        """A column as text without surrounding spaces; numbers are written as text.

        Raises:
          DataError: a row has none.
        """
        values = self._texts(name)
        empty = [sample.id for sample, value in zip(self.samples, values, strict=True) if not value]
        if empty:
            raise DataError(f"{self.name}: {len(empty)} rows have no `{name}`, the first: {empty[0]}")
        return values

    def column_if_complete(self, name: str) -> list[str] | None:
        """As `column`, but None if a row has none."""
        values = self._texts(name)
        return values if all(values) else None

    def _texts(self, name: str) -> list[str]:
        cells = (sample.extra.get(name) for sample in self.samples)
        return ["" if cell is None else str(cell).strip() for cell in cells]


def open_set(data: DataSettings, given: Mapping[str, Path | None] = NONE_GIVEN) -> EvaluationSet:
    """The evaluation set that the settings name.

    Args:
      data: the settings.
      given: files that are read in place of a benchmark's own, see `locate_annotations.locate`.

    Raises:
      DataError: the manifest or the shards cannot be used, or a row of the manifest is broken (a score over the other
        rows would not be a score of this set).
    """
    if data.benchmark:
        return _from_benchmark(data, given)
    return _from_manifest(data) if data.manifest else _from_shards(data)


def check_all_there(data: EvaluationSet, absent: Mapping[int, str]) -> None:
    """Refuse a set whose videos are not all there.

    Args:
      data: the set.
      absent: of its reader.

    Raises:
      DataError: videos are missing: how many, the first, and what to do.
    """
    if absent:
        number, reason = next(iter(absent.items()))
        raise DataError(
            f"{len(absent):,} of the {len(data.clips):,} videos of {data.name} are not there, the first: "
            f"{data.clips[number].video} ({reason}): correct {data.folder_field}, or give --allow_missing to count "
            "them as wrong"
        )


def _from_manifest(data: DataSettings) -> EvaluationSet:
    from data_pipeline.manifest.read import names_splits, read_manifest
    from data_pipeline.media_paths import WHOLE_FILE

    path = Path(data.manifest)
    manifest = read_manifest(path, data.root or None, data.split or None)
    if manifest.rejects:
        first = manifest.rejects[0]
        raise DataError(
            f"{path}: {len(manifest.rejects)} rows cannot be used, the first: {first.id}: {first.reason}; "
            "correct or remove them"
        )
    if any(row.part != WHOLE_FILE for row in manifest.rows):
        raise DataError(f"{path} holds packed clips, and scores are of video files: make shards of it (harvest shards)")
    samples, clips = _samples(manifest.rows)
    reader: FrameReader
    files = {"manifest": path}
    if data.shards:
        ids = {sample.id: sample.clip for sample in samples}
        kind, reader = "manifest over shards", ShardReader(data.shards, data.split, ids, clips)
        files["shards"] = Path(data.shards)
    else:
        kind, reader = "manifest", VideoReader(manifest.root, [clip.video for clip in clips], clips, data.workers)
    split = data.split if names_splits(path) else ""
    return EvaluationSet(path.name, kind, split, samples, clips, reader, files)


@runtime_checkable
class _Row(Protocol):
    """A row of a manifest or of a benchmark."""

    @property
    def id(self) -> str: ...

    @property
    def video(self) -> str: ...

    @property
    def start(self) -> float | None: ...

    @property
    def end(self) -> float | None: ...

    @property
    def captions(self) -> tuple[str, ...]: ...

    @property
    def extra(self) -> dict[str, Any]: ...


def _samples(rows: Sequence[_Row]) -> tuple[tuple[Sample, ...], tuple[VideoSpan, ...]]:
    """The rows, and their clips in order of first mention: rows of one video and span are about one clip."""
    numbers: dict[VideoSpan, int] = {}
    samples = tuple(
        Sample(
            row.id, numbers.setdefault(VideoSpan(row.video, row.start, row.end), len(numbers)), row.captions, row.extra
        )
        for row in rows
    )
    return samples, named(tuple(numbers))


def _from_benchmark(data: DataSettings, given: Mapping[str, Path | None]) -> EvaluationSet:
    benchmark = find_benchmark(data.benchmark)
    files = locate(benchmark, Path(data.annotations), given)
    rows = read_files(benchmark, files, data.partial)
    samples, clips = _samples(rows)
    reader: FrameReader
    if data.shards:
        # `harvest shards` names a clip by its file, and by its span where it is a part of the file.
        ids = {name: number for number, clip in enumerate(clips) for name in clip.shard_ids}
        ids |= {sample.id: sample.clip for sample in samples}
        kind, reader = "benchmark over shards", ShardReader(data.shards, data.split, ids, clips)
        files["shards"] = Path(data.shards)
    else:
        folder = list_videos(Path(data.videos))
        paths = [folder.find(clip.video) for clip in clips]
        kind, reader = "benchmark", VideoReader(Path(os.path.realpath(data.videos)), paths, clips, data.workers)
    found = counts(rows)
    other = [
        f"{found[name]:,} {name} where the benchmark has {count:,}"
        for name, count in benchmark.expected.items()
        if found[name] != count
    ]
    protocol = {"name": benchmark.name, "version": benchmark.version, "partial": bool(other)}
    notes = (f"this is not the whole benchmark: {', '.join(other)}",) if other else ()
    return EvaluationSet(benchmark.title, kind, benchmark.split, samples, clips, reader, files, protocol, notes=notes)


def _from_shards(data: DataSettings) -> EvaluationSet:
    from data_pipeline.shards.rejects import read_rejects
    from data_pipeline.shards.shard_format import open_shards, parse_record

    shards = open_shards(data.shards, data.split)
    if not len(shards):
        raise DataError(f"split {data.split!r} of {data.shards} has no clips")
    records = (parse_record(shards[number], frames=False) for number in range(len(shards)))
    samples = tuple(
        Sample(record.id, number, tuple(record.captions), record.extra) for number, record in enumerate(records)
    )
    clips = tuple(VideoSpan(sample.id) for sample in samples)
    ids = {sample.id: sample.clip for sample in samples}
    if len(ids) < len(samples):
        raise DataError(f"{data.shards}: {len(samples) - len(ids)} ids of split {data.split} appear more than once")
    reader = ShardReader(data.shards, data.split, ids, clips, whole=True)
    unstored = len({row_id for row_id, _, _ in read_rejects(Path(data.shards), data.split)} - ids.keys())
    files = {"shards": Path(data.shards)}
    return EvaluationSet(Path(data.shards).name, "shards", data.split, samples, clips, reader, files, unstored=unstored)
