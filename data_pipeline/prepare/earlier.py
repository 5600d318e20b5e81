"""The clips of a published split that is being replaced, to be taken over where nothing that decides them has changed.

A clip is looked up by its id. It is taken over if the split was made with the same settings and versions and the clip
has the same content: its span and the bytes of its file that decoding has read (decode/content.py). Its captions and
other columns may have changed, because frames do not depend on them.
"""

import bisect
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline.prepare import ledger, spool
from data_pipeline.shards.shard_format import shard_path, split_lengths
from harvest_jax.errors import DataError

_PLACE = ("id", "state", "shard", "row")
_CONTENT = ("reads", "content")


@dataclasses.dataclass(frozen=True)
class _Group:
    """A row group of the ledger.

    Attributes:
      number: its number.
      first: key of its first row, in whose order the rows are.
      records: of the shard of its first record, those in groups before it.
    """

    number: int
    first: bytes
    records: int


class EarlierSplit:
    """Finds clips of a published split. Its ledger is read a row group at a time, so it may be long.

    Args:
      out: the dataset.
      split: name of the split.

    Raises:
      DataError, OSError, ValueError: the split or its ledger is not there, damaged, or of an earlier version.
    """

    def __init__(self, out: Path, split: str):
        self._out, self._split = out, split
        self._num_shards = len(split_lengths(out)[split])
        self._file = pq.ParquetFile(ledger.ledger_path(out, split))
        if not set(_CONTENT) <= set(self._file.schema_arrow.names):
            raise DataError("the ledger is of an earlier version")
        self._groups = list(self._read_groups())
        self._firsts = [group.first for group in self._groups]
        self._rows = functools.lru_cache(maxsize=2)(self._read_rows)

    def find(self, name: str) -> dict[str, Any] | None:
        """A written clip by its id; fast if ids come in the order of their keys.

        Returns:
          `shard` (path), `record` (number in it), `reads`, `content` and `damaged` as in the ledger; None: not there.
        """
        group = bisect.bisect_right(self._firsts, spool.key_of(name)) - 1
        return self._rows(group).get(name) if group >= 0 else None

    def _read_groups(self) -> Iterator[_Group]:
        records: dict[int, int] = {}  # of each shard so far
        for number in range(self._file.num_row_groups):
            table = self._file.read_row_group(number, columns=list(_PLACE))
            if not table.num_rows or table["row"][0].as_py() is None:  # faulty rows of the manifest
                continue
            shards = _written(table)["shard"].to_pylist()
            yield _Group(number, spool.key_of(table["id"][0].as_py()), records.get(shards[0], 0) if shards else 0)
            for shard in shards:
                records[shard] = records.get(shard, 0) + 1

    def _read_rows(self, group: int) -> dict[str, dict[str, Any]]:
        found = {}
        at, shard = self._groups[group].records, None
        for row in _written(self._file.read_row_group(self._groups[group].number)).to_pylist():
            if shard not in (None, row["shard"]):
                at = 0
            shard = row["shard"]
            if row["content"] is not None:
                path = shard_path(self._out, self._split, shard, self._num_shards)
                known = {"reads": row["reads"], "content": row["content"], "damaged": row.get("damaged") or 0}
                found[row["id"]] = {"shard": str(path), "record": at} | known
            at += 1
        return found


def _written(table: pa.Table) -> pa.Table:
    return table.filter(pc.equal(table["state"], ledger.WRITTEN))


def earlier_split(
    out: Path, split: str, spec: dict[str, Any], time_limit: float, versions: dict[str, str]
) -> EarlierSplit | None:
    """The published split, if it was made with these settings and versions; None: its clips are of no use.

    Args:
      out: the dataset.
      split: name of the split.
      spec, time_limit, versions: those of `plan.SplitPlan`.
    """
    facts = ledger.read_plan(ledger.ledger_path(out, split))
    mine = {"spec": spec, "time_limit": time_limit, "versions": versions}
    if not isinstance(facts, dict) or {name: facts.get(name) for name in mine} != mine:
        return None
    try:
        return EarlierSplit(out, split)
    except (DataError, OSError, ValueError, KeyError):
        return None
