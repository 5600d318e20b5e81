"""The fields that every evaluation config has; `configs/eval/base.py` explains them to users."""

import dataclasses
from typing import Annotated

from harvest_jax.config.fields import Range


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """`config.data`: a manifest, shards, or both."""

    manifest: str
    root: str
    shards: str
    split: str
    workers: Annotated[int, Range(0, 1024)]


@dataclasses.dataclass(frozen=True)
class TaskSettings:
    """The common fields. Each task adds its own."""

    task: str
    seed: Annotated[int, Range(0, 2**31 - 1)]
    data: DataSettings
    frames: Annotated[int, Range(0, 1024)]
    batch_size: Annotated[int, Range(1, 65536)]
    strict: bool

    def contradictions(self) -> list[str]:
        """Contradictions between fields that are each in range. A task adds its own checks."""
        faults = []
        if not (self.data.manifest or self.data.shards):
            faults.append("set data.manifest (a table of videos), data.shards (a folder of `harvest shards`), or both")
        if self.data.shards and not self.data.split:
            faults.append("data.split is empty: name the split of the shards")
        return faults
