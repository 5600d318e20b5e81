"""Suites: benchmarks that belong together, and which of them lie below a folder.

The layout: ROOT/NAME/annotations with the official files and ROOT/NAME/videos with the videos, in any subfolders; NAME
is the benchmark's name or its dataset's, whose annotations and videos several benchmarks share. Instead of videos there
can be ROOT/NAME/shards, a folder of `harvest shards`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.evaluate.benchmarks.benchmark import Benchmark
from harvest_jax.evaluate.benchmarks.locate_annotations import MissingAnnotations, locate
from harvest_jax.evaluate.benchmarks.named import find_benchmark
from harvest_jax.terminal import printable


@dataclasses.dataclass(frozen=True)
class Entry:
    """One benchmark of a suite.

    Attributes:
      dataset: name of the folder that it may share with others.
      names: of the benchmark; several are forms of the same one, of which the first that is there counts.
    """

    dataset: str
    names: tuple[str, ...]


def _entries(**of_dataset: tuple[str, ...]) -> tuple[Entry, ...]:
    return tuple(Entry(dataset, (name,)) for dataset, names in of_dataset.items() for name in names)


# arXiv 2310.19554 evaluates zero-shot retrieval and multiple choice, questions and zero-shot action recognition. Its
# tables were not available to us: the sets attributed to it are MSR-VTT, MSVD, LSMDC, DiDeMo, the three of question
# answering and Kinetics-400. The others are our choice, those of the same group's related work. So are the forms: 1k-A
# of MSR-VTT, DiDeMo's first 30 s, the 1,000 sentences of LSMDC, all three splits of UCF101 and HMDB51.
_PAPER = (
    *_entries(
        msrvtt=("msrvtt_1ka",),
        msvd=("msvd",),
        lsmdc=("lsmdc",),
        didemo=("didemo",),
        activitynet=("activitynet",),
        vatex=("vatex",),
    ),
    *_entries(msrvtt=("msrvtt_mc",), lsmdc=("lsmdc_mc",)),
    *_entries(msrvtt=("msrvtt_qa",), msvd=("msvd_qa",), tgif_qa=("tgif_frame", "tgif_action", "tgif_transition")),
    *(Entry(name, (name, f"{name}_list")) for name in ("kinetics400", "kinetics600", "kinetics700")),
    *_entries(ucf101=("ucf101_1", "ucf101_2", "ucf101_3"), hmdb51=("hmdb51_1", "hmdb51_2", "hmdb51_3")),
)
SUITES: Mapping[str, tuple[Entry, ...]] = {"paper": _PAPER}


@dataclasses.dataclass(frozen=True)
class Present:
    """A benchmark that lies below the root: its annotations, and its videos or shards."""

    benchmark: Benchmark
    annotations: Path
    videos: Path | None
    shards: Path | None

    @property
    def overrides(self) -> list[str]:
        """The fields of its config."""
        frames = f"data.videos={self.videos}" if self.videos else f"data.shards={self.shards}"
        return [f"data.annotations={self.annotations}", frames]


@dataclasses.dataclass(frozen=True)
class Absent:
    """A benchmark that does not lie below the root, and why."""

    benchmark: Benchmark
    reason: str


def find_suite(name: str) -> tuple[Entry, ...]:
    """The benchmarks of a suite.

    Raises:
      ConfigError: there is no such suite.
    """
    if name not in SUITES:
        raise ConfigError(f"no suite {printable(name, 40)!r}: there is {', '.join(SUITES)}")
    return SUITES[name]


def look_below(root: Path, entries: Sequence[Entry]) -> tuple[list[Present], list[Absent]]:
    """The benchmarks that lie below the root, and those that do not, both in the order of the suite.

    Annotation files are looked for by their names and not read.

    A benchmark whose annotation files are there but contradict each other counts as present: reading it says what is
    wrong.
    """
    present: list[Present] = []
    absent: list[Absent] = []
    for entry in entries:
        found = [_look(root, entry.dataset, find_benchmark(name)) for name in entry.names]
        chosen = next((one for one in found if isinstance(one, Present)), None)
        if chosen is not None:
            present.append(chosen)
        else:
            absent.append(next(one for one in found if isinstance(one, Absent)))
    return present, absent


def _look(root: Path, dataset: str, benchmark: Benchmark) -> Present | Absent:
    folders = [root / name for name in dict.fromkeys((benchmark.name, dataset)) if (root / name).is_dir()]
    if not folders:
        return Absent(benchmark, f"no folder {root / dataset}")
    annotations = [folder / "annotations" for folder in folders if (folder / "annotations").is_dir()]
    if not annotations:
        return Absent(benchmark, f"no folder {folders[-1] / 'annotations'}")
    located = next((folder for folder in annotations if _has(benchmark, folder)), None)
    if located is None:
        files = "; ".join(f"{purpose}: {' or '.join(names)}" for purpose, names in list(benchmark.files.items())[:3])
        return Absent(benchmark, f"not all of its annotation files are in {annotations[-1]} ({files})")
    videos, shards = (
        next((folder / kind for folder in folders if (folder / kind).is_dir()), None) for kind in ("videos", "shards")
    )
    if videos is None and shards is None:
        return Absent(benchmark, f"no folder {folders[-1] / 'videos'}, and none called shards")
    return Present(benchmark, located, videos, None if videos else shards)


def _has(benchmark: Benchmark, folder: Path) -> bool:
    try:
        locate(benchmark, folder)
    except MissingAnnotations:
        return False
    except DataError:
        return True
    return True


def absent_lines(absent: Sequence[Absent]) -> list[str]:
    """For each benchmark that is not there: why, and where it comes from; those of one dataset together."""
    titles: dict[tuple[str, str], list[str]] = {}
    for one in absent:
        titles.setdefault((one.reason, one.benchmark.source), []).append(one.benchmark.title)
    return [f"{'; '.join(names)}: {reason}; {source}" for (reason, source), names in titles.items()]
