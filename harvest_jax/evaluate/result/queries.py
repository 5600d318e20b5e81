"""The ranks of all queries of an evaluation, as a Parquet table: for intervals and paired tests without a second run.

A query is known by what was asked, not by its place in a file, so that two results on the same set can be joined.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float

from harvest_jax.evaluate.clips.frame_readers import VideoSpan
from harvest_jax.evaluate.scores.ranking import Ranks
from harvest_jax.files import atomic_file, sha256_of

SCHEMA = pa.schema(
    [
        ("part", pa.string()),
        ("video", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("text", pa.string()),
        ("type", pa.string()),
        ("missing", pa.bool_()),
        ("greater", pa.int64()),
        ("tied", pa.int64()),
        ("right", pa.int64()),
        ("value", pa.float64()),
    ]
)


@dataclasses.dataclass(frozen=True)
class Queries:
    """The queries of one part of a task.

    Attributes:
      part: what is asked: "t2v", "v2t", "choice" (of options), "clip" (of several), "class", "answer", "count",
        "pair" (four choices of each group), "direction" (a clip or itself backwards).
      clips: the clip that each query belongs to.
      texts: what was asked: a caption, a question; empty where the clip alone is the query.
      ranks: of the right answer; None where answers have no ranks.
      missing: the query's video could not be read; its rank is the last and it counts as wrong.
      types: of each query; None if there are none.
      value: what is averaged over the queries where that is not made of ranks, such as a squared error.
    """

    part: str
    clips: Sequence[VideoSpan]
    texts: Sequence[str]
    ranks: Ranks | None
    missing: Bool[np.ndarray, " queries"]
    types: Sequence[str] | None = None
    value: Float[np.ndarray, " queries"] | None = None

    def table(self) -> pa.Table:
        """One row a query, with the columns of `SCHEMA`."""
        keys = [clip.key for clip in self.clips]
        # A name or text that is not UTF-8 is replaced: it is needed only to join results.
        columns: dict[str, list[Any]] = {
            "part": [self.part] * len(keys),
            "video": [_text(key[0]) for key in keys],
            "start": [key[1] for key in keys],
            "end": [key[2] for key in keys],
            "text": [_text(text) for text in self.texts],
            "type": list(map(_text, self.types)) if self.types is not None else [None] * len(keys),
            "missing": self.missing.tolist(),
            "value": [None] * len(keys) if self.value is None else self.value.tolist(),
        }
        for name in ("greater", "tied", "right"):
            columns[name] = [None] * len(keys) if self.ranks is None else getattr(self.ranks, name).tolist()
        return pa.table(columns, schema=SCHEMA)

    @staticmethod
    def write(parts: Sequence["Queries"], path: Path) -> str:
        """Write the queries of all parts to a file, whole or not at all; returns its SHA-256 (hex).

        Raises:
          OSError: no such folder, no permission, disk full.
        """
        table = pa.concat_tables([SCHEMA.empty_table(), *(part.table() for part in parts)])
        with atomic_file(path) as aside:
            pq.write_table(table, aside, compression="zstd")
            return sha256_of(aside)


def _text(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode()
