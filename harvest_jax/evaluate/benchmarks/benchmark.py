"""What a benchmark is: its official annotation files, the rows in them, their counts, and how it is scored by default.

A module of `datasets` describes one benchmark or a family that shares files; it reads and never scores. `tasks` score
and never read.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

# How captions belong to videos: one each; several, each a query of its own; all sentences of a video joined to one
# text; none (the rows have labels, questions or options).
Captions = Literal["one", "several", "paragraph", "none"]


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a benchmark.

    Attributes:
      id: unique in the benchmark.
      video: the clip's name as the annotations write it, with or without a suffix.
      start, end: seconds in the video file; None: from its beginning, to its end.
      captions: of the clip, in the order of the file; may be empty.
      extra: what the task reads besides: `label`; `question` and `answer`; `options` and `answer` (counted from 0);
        `type` and more.
      where: file and place in it, for messages; may be empty.
    """

    id: str
    video: str
    start: float | None = None
    end: float | None = None
    captions: tuple[str, ...] = ()
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    where: str = dataclasses.field(default="", compare=False)


def _nothing_more(files: Mapping[str, Path]) -> Mapping[str, Path]:
    return {}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One benchmark, by the name of its config: `harvest eval --config eval/NAME`.

    Attributes:
      name: of the config file in configs/eval/, for example "msrvtt_1ka".
      title: as people write it.
      version: of this definition; raised when a change of it changes scores.
      task: a module of `tasks`.
      split: what part of the dataset this is, in the dataset's words.
      files: annotation files that are needed: purpose -> names by which the file is known, the official one first.
        A name may hold a folder ("annotation/MSR_VTT.json").
      read: from the files (purpose -> path) to the rows, in the order of the file.
      expected: counts that the rows must have: "rows", "videos", where there are captions "captions", and where there
        are labels "classes".
      captions: the caption policy.
      settings: fields of the task's config that differ from its defaults, for example {"frames": 12}.
      source: where the files and videos come from, in one sentence.
      licence: its terms, in a few words; "not stated" where nothing was found.
      notes: what a reader of a score has to know; may be empty.
      split_of: name of the dataset of which this is one of several splits, whose mean is reported; else empty.
      more_files: from the files that were found to those that these make necessary, again by purpose. It raises
        `DataError` if one is not there.
    """

    name: str
    title: str
    version: str
    task: str
    split: str
    files: Mapping[str, tuple[str, ...]]
    read: Callable[[Mapping[str, Path]], list[Row]]
    expected: Mapping[str, int]
    captions: Captions
    settings: Mapping[str, Any]
    source: str
    licence: str
    notes: str = ""
    split_of: str = ""
    more_files: Callable[[Mapping[str, Path]], Mapping[str, Path]] = _nothing_more


def counts(rows: list[Row]) -> dict[str, int]:
    """The counts that `Benchmark.expected` names; a video counts once for each span of it.

    "classes" is there only if rows have labels.
    """
    found = {
        "rows": len(rows),
        "videos": len({(row.video, row.start, row.end) for row in rows}),
        "captions": sum(len(row.captions) for row in rows),
    }
    labels = {row.extra["label"] for row in rows if "label" in row.extra}
    return found | ({"classes": len(labels)} if labels else {})
