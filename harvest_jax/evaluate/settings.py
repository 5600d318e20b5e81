"""The fields that every evaluation config has; `configs/eval/base.py` explains them to users."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from harvest_jax.config.fields import Range
from harvest_jax.pixels.frame_sampling import Policy, Sampling

MAX_FRAMES = 1024  # of all views and crops of a clip; 1,024 squares of 224 pixels are 154 MB


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
    _: dataclasses.KW_ONLY  # so that tasks can add fields without defaults
    sampling: Policy = "segment_middle"
    sampling_fps: Annotated[float, Range(0.01, 1000.0)] = 1.0
    views: Annotated[int, Range(1, 64)] = 1
    crops: Annotated[int, Range(1, 3)] = 1
    resize: Literal["", "crop", "squash"] = ""
    keep_ratio: Annotated[float, Range(0.001, 1.0)] = 1.0

    @property
    def frame_sampling(self) -> Sampling:
        """The fields that say which frames, views and crops are seen."""
        return Sampling(self.sampling, self.sampling_fps, self.views, self.crops)

    @property
    def dropping(self) -> dict[str, Any]:
        """How patches are dropped, for protocols; {} if none are."""
        return {} if self.keep_ratio == 1.0 else {"keep_ratio": self.keep_ratio, "patches_drawn_by_seed": self.seed}

    @property
    def given_files(self) -> Mapping[str, Path | None]:
        """Files that are read in place of a benchmark's own, by purpose; None: none is read. A task names its own."""
        return {}

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
        return faults + self._sampling_faults()

    def _sampling_faults(self) -> list[str]:
        faults = []
        if self.crops == 2:
            faults.append("crops=2: it must be 1 (the centre) or 3 (along the longer side)")
        if self.crops > 1 and self.resize == "squash":
            faults.append(f"crops={self.crops} cut pictures, and resize='squash' does not: give one of them")
        if self.views > 1 and self.sampling == "linspace_inclusive":
            faults.append(
                f"views={self.views} are shifted in time, which linspace_inclusive, with the first and the last frame, "
                "cannot be: give sampling=segment_middle or fps, or views=1"
            )
        if self.sampling_fps != 1.0 and self.sampling != "fps":
            faults.append(f"sampling_fps={self.sampling_fps:g} has no use with sampling={self.sampling}: give fps")
        if self.frames * self.views * self.crops > MAX_FRAMES:
            faults.append(too_many_frames(self.frames, self.views, self.crops))
        return faults


def too_many_frames(frames: int, views: int, crops: int) -> str:
    """The fault of a clip with more than `MAX_FRAMES`."""
    return (
        f"{frames} frames x {views} views x {crops} crops are {frames * views * crops:,} pictures of a clip, "
        f"more than {MAX_FRAMES:,}"
    )


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
