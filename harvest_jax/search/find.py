"""Find moments: the windows that fit a query best, neighbouring ones merged."""

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from harvest_jax.search.index import Clip, SearchIndex
from harvest_jax.search.query import Query
from harvest_jax.search.scores import best_rows, exact_scores

SAMPLE = 4096  # windows by which the usual scores of a folder are known
MERGE = 0.8  # a neighbour is of the same moment from so much of the best window's distance from usual on; our choice
_FIRST = 64  # windows looked at first; more if they are of few moments
NEUTRAL = tuple(
    f"a video of {what}"
    for what in (
        *("something", "a place", "a person", "people", "an animal", "an object", "a room", "a building", "a street"),
        *("nature", "the sky", "food", "a machine", "text", "a shape", "a color", "light", "movement", "nothing"),
        *("a hand", "a face", "water", "a plant", "a car"),
    )
)


@dataclasses.dataclass(frozen=True)
class Moment:
    """A moment that was found.

    Attributes:
      rank: from 1.
      score: cosine of the query and the best window.
      z: how far that is above the folder's usual scores, in standard deviations (`Baseline`).
      path: file below the folder.
      start, end: seconds; both 0 of a picture.
      copies: other files with the same content.
      windows: that were merged.
    """

    rank: int
    score: float
    z: float
    path: str
    start: float
    end: float
    copies: tuple[str, ...] = ()
    windows: int = 1

    def as_json(self) -> dict[str, Any]:
        """The fields, rounded to what can be relied on."""
        fields = dataclasses.asdict(self)
        return fields | {"z": round(self.z, 3), "start": round(self.start, 3), "end": round(self.end, 3)}


@dataclasses.dataclass(frozen=True)
class Filters:
    """Which files are searched; None: any.

    Attributes:
      below: folder below the indexed one.
      after, before: modification time, seconds since 1970.
      shortest, longest: duration in seconds; that of a picture is 0.
    """

    below: str | None = None
    after: float | None = None
    before: float | None = None
    shortest: float | None = None
    longest: float | None = None


@dataclasses.dataclass(frozen=True)
class Baseline:
    """The usual scores of a folder: their mean and standard deviation."""

    mean: float
    deviation: float

    def z(self, score: float) -> float:
        """How many standard deviations a score is above the mean."""
        return (score - self.mean) / self.deviation


class Searcher:
    """An index that is searched many times: what does not depend on the query is computed once.

    Args:
      index: as opened.
      neutral: embeddings of `NEUTRAL`, unit length.
    """

    def __init__(self, index: SearchIndex, neutral: Float32[np.ndarray, "n d"]) -> None:
        self.index = index
        self._owners = index.owners()
        self._neutral = neutral
        self._paths: dict[int, list[str]] = {}
        for path, file in sorted(index.files.items()):
            self._paths.setdefault(file.clip, []).append(path)

    def baseline(self, query: Query) -> Baseline:
        """The scores to compare a query's with.

        Of words: those of neutral texts with windows of the folder. Of a picture or clip, which is nearer to any window
        than words are: its own with these windows.
        """
        if query.of_words:
            return self._usual
        return _baseline(self._sample @ query.vector)

    def find(
        self,
        query: Query,
        top: int = 10,
        group: str = "moment",
        min_score: float | None = None,
        filters: Filters | None = None,
    ) -> list[Moment]:
        """The best moments, best first; equal ones in the order of their names.

        Args:
          query: of the index's model.
          top: how many, at most.
          group: "moment", or "file" for the best moment of each file.
          min_score: least `Moment.z`; None: any.
          filters: the files to search.
        """
        paths = self._paths if filters is None else self._passing(filters)
        allowed = self._owners >= 0 if filters is None else np.isin(self._owners, list(paths))
        baseline = self.baseline(query)
        found: list[Moment] = []
        for moment in self._moments(query, baseline, allowed, paths, group == "file", top):
            if min_score is not None and moment.z < min_score:
                break
            found.append(moment)
            if len(found) == top:
                break
        return [dataclasses.replace(moment, rank=rank) for rank, moment in enumerate(found, start=1)]

    def _moments(
        self,
        query: Query,
        baseline: Baseline,
        allowed: Bool[np.ndarray, " n"],
        paths: Mapping[int, list[str]],
        by_file: bool,
        top: int,
    ) -> Iterator[Moment]:
        """All moments, best first: each grows from the best window that is in none before it."""
        taken: dict[int, list[tuple[float, float]]] = {}
        count, seen = max(_FIRST, 4 * top), 0
        total = int(allowed.sum())
        while seen < total:
            numbers, scores = best_rows(self.index.rows, query.vector, count, allowed)
            rows = sorted(
                zip(numbers[seen:], scores[seen:], strict=True),
                key=lambda item: (-item[1], paths[int(self._owners[item[0]])][0], item[0]),
            )
            for row, score in rows:
                number = int(self._owners[row])
                clip = self.index.clips[number]
                start, end = clip.spans[row - clip.first]
                before = taken.setdefault(number, [])
                if (by_file and before) or any(start < other[1] and end > other[0] for other in before):
                    continue
                if clip.spans[-1][1] == 0:  # a picture
                    span, windows = (0.0, 0.0), 1
                else:
                    span, windows = self._grown(clip, int(row) - clip.first, float(score), query, baseline, before)
                before.append(span)
                path, *copies = paths[number]
                yield Moment(0, float(score), baseline.z(float(score)), path, *span, tuple(copies), windows)
            seen = len(numbers)
            count *= 8

    def _grown(
        self, clip: Clip, best: int, score: float, query: Query, baseline: Baseline, before: list[tuple[float, float]]
    ) -> tuple[tuple[float, float], int]:
        """A window with those beside it that fit nearly as well, up to other moments."""
        least = baseline.mean + MERGE * (score - baseline.mean)
        first = last = best
        if score > baseline.mean:
            while first > 0 and self._fits(clip, first - 1, least, query, before):
                first -= 1
            while last + 1 < len(clip.spans) and self._fits(clip, last + 1, least, query, before):
                last += 1
        return (float(clip.spans[first][0]), float(clip.spans[last][1])), last - first + 1

    def _fits(self, clip: Clip, window: int, least: float, query: Query, before: list[tuple[float, float]]) -> bool:
        start, end = clip.spans[window]
        if any(start < other[1] and end > other[0] for other in before):
            return False
        number = np.array([clip.first + window])
        return bool(exact_scores(self.index.rows, number, query.vector)[0] >= least)

    def _passing(self, filters: Filters) -> dict[int, list[str]]:
        """The clips that are searched, with those of their files that pass."""
        shortest, longest = filters.shortest or 0.0, np.inf if filters.longest is None else filters.longest
        passing: dict[int, list[str]] = {}
        for number, paths in self._paths.items():
            spans = self.index.clips[number].spans
            if not len(spans) or not shortest <= spans[-1][1] <= longest:
                continue
            kept = [path for path in paths if _passes(path, self.index.files[path].mtime_ns / 1e9, filters)]
            if kept:
                passing[number] = kept
        return passing

    @functools.cached_property
    def _sample(self) -> Float32[np.ndarray, "m d"]:
        """Some of the windows, evenly over all."""
        numbers = np.flatnonzero(self._owners >= 0)
        step = max(1, len(numbers) // SAMPLE)
        return self.index.rows.exact[numbers[::step][:SAMPLE]].astype(np.float32)

    @functools.cached_property
    def _usual(self) -> Baseline:
        return _baseline(self._sample @ self._neutral.T)


def _baseline(scores: np.ndarray) -> Baseline:
    return Baseline(float(scores.mean()), max(float(scores.std()), 1e-6)) if scores.size else Baseline(0.0, 1.0)


def _passes(path: str, seconds: float, filters: Filters) -> bool:
    if filters.below is not None and os.path.commonpath((filters.below, path)) != filters.below:
        return False
    return (filters.after is None or seconds >= filters.after) and (filters.before is None or seconds < filters.before)
