"""The fields that every evaluation config has; `configs/eval/base.py` explains them to users."""

import dataclasses
from typing import Annotated

from harvest_jax.config.fields import Range


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """`config.data`: a manifest, shards, or both; or a benchmark's annotations with videos or shards."""

    manifest: str
    root: str
    shards: str
    split: str
    workers: Annotated[int, Range(0, 1024)]
    benchmark: str = ""
    annotations: str = ""
    videos: str = ""
    partial: bool = False


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
        if self.data.benchmark:
            faults += _benchmark_faults(self.data)
        elif not (self.data.manifest or self.data.shards):
            faults.append("set data.manifest (a table of videos), data.shards (a folder of `harvest shards`), or both")
        elif self.data.annotations or self.data.videos or self.data.partial:
            faults.append("data.annotations, data.videos and data.partial belong to benchmarks (harvest eval --list)")
        if self.data.shards and not self.data.split:
            faults.append("data.split is empty: name the split of the shards")
        return faults


def _benchmark_faults(data: DataSettings) -> list[str]:
    faults = []
    if not data.annotations:
        faults.append("set data.annotations to the benchmark's annotation file, or a folder that holds its files")
    if not data.videos and not data.shards:
        faults.append("set data.videos (the folder of the videos) or data.shards (a folder of `harvest shards`)")
    if data.videos and data.shards:
        faults.append("set data.videos or data.shards, not both")
    if data.manifest or data.root:
        faults.append("data.manifest and data.root have no use with a benchmark, which names its videos itself")
    return faults
