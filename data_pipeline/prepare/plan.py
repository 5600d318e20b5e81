"""The plan of a split: everything that decides its bytes, fixed before the first shard is written.

It is in the split's work folder, `OUT/.SPLIT.writing/plan/`: plan.json and the rows (spool.py). The folder is written
under another name and then renamed. A run that continues reads its manifest again and compares.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipeline.decode.pool import DecoderPool
from data_pipeline.prepare import spool
from data_pipeline.prepare.earlier import EarlierSplit
from data_pipeline.prepare.options import Options
from data_pipeline.shards.shard_format import VERSION
from harvest_jax.embeddings_file import METHOD
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.terminal import Progress
from harvest_jax.version import __version__

# modules that a worker needs to make records
MODULES = ("data_pipeline.decode.clip", "data_pipeline.decode.packed_clip", "data_pipeline.shards.shard_format")
SAMPLE = 32  # clips that are decoded to know the size of their records
_LIBRARIES = ("array_record", "av", "numpy", "pillow", "protobuf")  # another version may write different bytes


@dataclasses.dataclass(frozen=True)
class SplitPlan:
    """A split to be written. The attributes are the keys of plan.json.

    Attributes:
      split: its name.
      root: real path of the folder that the videos' names are relative to.
      rows: number of clips.
      early: number of rows that the manifest's reader rejected.
      manifest: sha256 of all rows and of these rejects.
      spec: the fields of DecodeSpec.
      time_limit: seconds of processor time to decode one clip.
      shards, shard_mb: as in Options.
      num_shards: number of shards that follows from them.
      versions: of the record, this package, the machine type, and the libraries that decide the bytes.
    """

    split: str
    root: str
    rows: int
    early: int
    manifest: str
    spec: dict[str, Any]
    time_limit: float
    shards: int | None
    shard_mb: float
    num_shards: int
    versions: dict[str, str]

    @property
    def digest(self) -> str:
        """sha256 of the plan; equal plans give equal bytes."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()

    def span(self, shard: int) -> tuple[int, int]:
        """First and last + 1 position of a shard's rows; the shard of a row is position * num_shards // rows."""
        return -(-shard * self.rows // self.num_shards), -(-(shard + 1) * self.rows // self.num_shards)

    def differences(self, other: "SplitPlan") -> list[str]:
        """The differences to `other` that a user can cause, as text."""
        mine, theirs = (_flat(dataclasses.asdict(plan)) for plan in (self, other))
        names = [name for name in mine | theirs if name != "num_shards" and mine.get(name) != theirs.get(name)]
        return [
            "other rows in the manifest" if name == "manifest" else f"{name} {mine.get(name)}, not {theirs.get(name)}"
            for name in names
            if not (name in ("rows", "early") and mine["manifest"] != theirs["manifest"])
        ]


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    inner = {name: value for group in ("spec", "versions") for name, value in fields[group].items()}
    return {name: value for name, value in fields.items() if name not in ("spec", "versions")} | inner


def record_versions() -> dict[str, str]:
    """The versions, on this machine, of everything that decides the bytes of a record."""
    own = {"record": VERSION, "frames": str(METHOD), "harvest_jax": __version__, "machine": platform.machine()}
    return own | {name: importlib.metadata.version(name) for name in _LIBRARIES}


def make_plan(
    rows: spool.Spool,
    split: str,
    root: str | Path,
    options: Options,
    workers: int,
    earlier: SplitPlan | None,
    progress: Progress | None = None,
    replaced: EarlierSplit | None = None,
) -> SplitPlan:
    """The plan for these rows.

    Args:
      rows: all rows of the split; this call finishes the spool.
      split: its name.
      root: folder that the videos' names are relative to.
      options: what to write.
      workers: processes that decode a sample, from which the number of shards follows.
      earlier: an earlier plan; its number of shards is kept if all else is equal.
      progress: called after each clip of the sample.
      replaced: the split that is replaced, if its clips may be taken over.

    Raises:
      DataError: two rows share an id.
      ConfigError: more shards than rows.
    """
    manifest = rows.finish()
    if options.shards is not None and options.shards > max(1, rows.rows):
        raise ConfigError(f"--shards {options.shards} is impossible for {rows.rows} clips")
    plan = SplitPlan(
        split=split,
        root=os.path.realpath(root),
        rows=rows.rows,
        early=rows.early,
        manifest=manifest,
        spec=dataclasses.asdict(options.spec),
        time_limit=options.time_limit,
        shards=options.shards,
        shard_mb=options.shard_mb,
        num_shards=options.shards or 0,
        versions=record_versions(),
    )
    if options.shards is None:
        if earlier is not None and not plan.differences(earlier):
            number = earlier.num_shards
        else:
            number = _number_of_shards(rows.folder, plan, workers, progress, replaced)
        plan = dataclasses.replace(plan, num_shards=number)
    return plan


def _number_of_shards(
    folder: Path, plan: SplitPlan, workers: int, progress: Progress | None, replaced: EarlierSplit | None
) -> int:
    """From the size of the first clips in the order of the hash, so that every run finds the same number."""
    largest = plan.spec["num_frames"] * plan.spec["short_side"] ** 2  # upper bound: a byte for each pixel of a square
    if plan.rows * largest <= plan.shard_mb * 1e6:
        return 1
    sample = min(plan.rows, SAMPLE)
    sizes = []
    with DecoderPool(workers, plan.time_limit, modules=MODULES) as pool:
        for result in pool.map(tasks(folder, plan, 0, sample, replaced)):
            sizes.append(len(result.payload))
            if progress is not None:
                progress(len(sizes), sample, "")
    return min(plan.rows, max(1, math.ceil(sum(sizes) / len(sizes) * plan.rows / (plan.shard_mb * 1e6))))


def tasks(
    folder: Path, plan: SplitPlan, begin: int, end: int, earlier: EarlierSplit | None = None
) -> Iterator[dict[str, Any]]:
    """The tasks of the decoder for the rows at the positions begin..end.

    Args:
      folder: of the rows.
      plan: of the split.
      begin, end: the positions.
      earlier: what clips may be taken over from.
    """
    for row in spool.read_rows(folder, begin, end):
        task: dict[str, Any] = {"root": plan.root, "video": row.video, "start": row.start, "end": row.end}
        if row.part is not None:
            task["part"] = row.part
        if earlier is not None and (found := earlier.find(row.id)) is not None:
            task["earlier"] = found
        record = {"id": row.id, "captions": row.captions, "extra": row.extra}
        yield task | {"spec": plan.spec, "record": record}


def save(job: Path, aside: Path, plan: SplitPlan) -> None:
    """Write the plan into `aside`, the folder of its rows, and rename that folder to its final name."""
    (aside / "plan.json").write_text(json.dumps(dataclasses.asdict(plan), indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder_of(job), ignore_errors=True)
    aside.replace(folder_of(job))


def folder_of(job: Path) -> Path:
    """The folder of the plan and the rows in a work folder."""
    return job / "plan"


def load_plan(job: Path) -> SplitPlan | None:
    """The plan in a work folder; None if there is none or it cannot be read."""
    try:
        return parse_plan(json.loads((folder_of(job) / "plan.json").read_bytes()))
    except (OSError, ValueError):
        return None


def parse_plan(facts: Any) -> SplitPlan | None:
    """A plan from the content of plan.json; None if it is from another version, or damaged."""
    try:
        plan = SplitPlan(**facts)
    except TypeError:
        return None
    groups = isinstance(plan.spec, dict) and isinstance(plan.versions, dict)
    return plan if groups and isinstance(plan.num_shards, int) and plan.num_shards > 0 else None


def plan_for_worker(job: Path) -> SplitPlan:
    """The plan in a work folder, for a worker of an engine.

    Raises:
      DataError: it cannot be read on this machine, or other versions are installed here than where it was made.
    """
    plan = load_plan(job)
    if plan is None:
        raise DataError(
            f"{os.uname().nodename} cannot read {folder_of(job)}/plan.json: --out must be on a file system that "
            "every worker sees under the same path"
        )
    other = dataclasses.replace(plan, versions=record_versions()).differences(plan)
    if other:
        raise DataError(f"{os.uname().nodename} would write different bytes: {'; '.join(other)}")
    return plan
