"""The layout of a training folder (workdir): the names of its files and folders, known here alone.

    config.json              the run's config, as last given
    model.json               the model's description, written before the first step
    metrics.jsonl            measurements, one JSON object a line
    events.jsonl             what happened and when, over all attempts, one JSON object a line
    device_rates.json        measured FLOP/s of the devices that it ran on, for the MFU
    profile/                 traces of some steps, if asked for
    tensorboard/             the same for TensorBoard
    frozen_text/             the frozen parameters, written once
    checkpoints/STEP/        one folder a step, with a MANIFEST.json once it is complete; SCORES.json if it was scored
    quarantine/              what was rejected at a restart: moved, never deleted
    export/                  the model folder that a finished run leaves

Nothing here imports JAX, so that launchers can ask, too.
"""

import dataclasses
from pathlib import Path
from typing import Any

from harvest_jax.checkpoint import digests
from harvest_jax.checkpoint.digests import DamagedError


@dataclasses.dataclass(frozen=True)
class Workdir:
    """The paths of one training folder, and which checkpoints it holds; nothing is written."""

    root: Path

    @property
    def config(self) -> Path:
        """The run's config, JSON."""
        return self.root / "config.json"

    @property
    def model(self) -> Path:
        """The model's description: {"model": HarvestConfig.to_dict(), ...}. Versions up to 0.1.0 wrote none."""
        return self.root / "model.json"

    @property
    def metrics(self) -> Path:
        """Measurements, one JSON object a line."""
        return self.root / "metrics.jsonl"

    @property
    def events(self) -> Path:
        """What happened and when, one JSON object a line; nothing is ever removed."""
        return self.root / "events.jsonl"

    @property
    def rates(self) -> Path:
        """The measured rates of devices, JSON: {device kind: {dtype: FLOP/s}}."""
        return self.root / "device_rates.json"

    @property
    def profile(self) -> Path:
        """Folder of traces."""
        return self.root / "profile"

    @property
    def tensorboard(self) -> Path:
        """Folder of event files."""
        return self.root / "tensorboard"

    @property
    def frozen(self) -> Path:
        """Folder of the frozen parameters; missing if nothing is frozen. (The text tower, unless told otherwise.)"""
        return self.root / "frozen_text"

    @property
    def checkpoints(self) -> Path:
        """Folder with one folder for each step."""
        return self.root / "checkpoints"

    @property
    def quarantine(self) -> Path:
        """Folder of what was rejected."""
        return self.root / "quarantine"

    @property
    def export(self) -> Path:
        """The model folder of a finished run."""
        return self.root / "export"

    @property
    def exported(self) -> bool:
        """Whether the run has ended and its model folder is complete: the config is the last file that is written."""
        return (self.export / "config.json").is_file()

    @property
    def lock(self) -> Path:
        """File that the process locks that trains here."""
        return self.root / ".lock"

    @property
    def exists(self) -> bool:
        """Whether this is a training folder: it holds a folder of checkpoints."""
        return self.checkpoints.is_dir()

    def step(self, step: int) -> Path:
        """Folder of the checkpoint after `step` steps."""
        return self.checkpoints / str(step)

    def steps(self) -> list[int]:
        """The steps that have a folder, complete or not, ascending."""
        if not self.exists:
            return []
        names = [path.name for path in self.checkpoints.iterdir() if path.is_dir()]
        return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)

    def manifest(self, step: int) -> dict[str, Any] | None:
        """The manifest of a step; None if it is missing or altered. The files that it lists are not read."""
        try:
            return digests.read_digests(self.step(step))
        except DamagedError:
            return None

    def complete_steps(self) -> list[int]:
        """Steps whose manifest is there and unaltered, ascending; their files are not read."""
        return [step for step in self.steps() if self.manifest(step) is not None]


def workdir_of_step(folder: Path) -> tuple[Workdir, int] | None:
    """(W, 40) for W/checkpoints/40, whether that folder exists or not; None for any other path."""
    number = folder.name
    if not (number.isdecimal() and str(int(number)) == number):
        return None
    workdir = Workdir(folder.parent.parent)
    return (workdir, int(number)) if workdir.checkpoints.name == folder.parent.name else None
