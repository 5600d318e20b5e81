"""The layout of a training folder (workdir): the names of its files and folders, known here alone.

    config.json              the run's config, as last given
    model.json               the model's description, written before the first step
    tokenizer.json           the tokenizer of a model that has its own, written with it
    metrics.jsonl            measurements, one JSON object a line
    events.jsonl             what happened and when, over all attempts, one JSON object a line
    device_rates.json        measured FLOP/s of the devices that it ran on, for the MFU
    profile/                 traces of some steps, if asked for
    tensorboard/             the same for TensorBoard
    stop_time.json           how long a stop takes, for launchers
    frozen_text/             the frozen parameters, written once
    checkpoints/STEP/        one folder a step, with a MANIFEST.json once it is complete; SCORES.json if it was scored
    quarantine/              what was rejected at a restart: moved, never deleted
    export/                  the model folder that a finished run leaves
    compiled/                compiled programs of a run of several processes, for its restarts
    attempts.json            of launch/restarts.py: how many attempts brought no new checkpoint

Nothing here imports JAX, so that launchers can ask, too.
"""

import dataclasses
from pathlib import Path
from typing import Any

from harvest_jax.checkpoint import digests
from harvest_jax.checkpoint.digests import DamagedError, is_folder, names_in


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
    def tokenizer(self) -> Path:
        """The tokenizer of a model whose tokenizer is not CLIP's."""
        return self.root / "tokenizer.json"

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
    def stop_time(self) -> Path:
        """{"seconds": measured, from a signal to a saved state}."""
        return self.root / "stop_time.json"

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
    def compiled(self) -> Path:
        """Folder of compiled programs, which may be removed at any time."""
        return self.root / "compiled"

    @property
    def exported(self) -> bool:
        """Whether the run has ended and its model folder is complete: the config is the last file that is written."""
        return (self.export / "config.json").is_file()

    @property
    def lock(self) -> Path:
        """File that the process locks that trains here."""
        return self.root / ".lock"

    @property
    def attempts(self) -> Path:
        """What the launcher knows about earlier attempts, JSON; the training does not read it."""
        return self.root / "attempts.json"

    @property
    def exists(self) -> bool:
        """Whether this is a training folder: it holds a folder of checkpoints.

        Raises:
          CheckpointError: the disk does not answer.
        """
        return is_folder(self.checkpoints)

    def step(self, step: int) -> Path:
        """Folder of the checkpoint after `step` steps."""
        return self.checkpoints / str(step)

    def steps(self) -> list[int]:
        """The steps that have a folder, complete or not, ascending.

        Raises:
          CheckpointError: the disk does not answer.
        """
        if not self.exists:
            return []
        names = names_in(self.checkpoints)
        steps = sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)
        return [step for step in steps if is_folder(self.step(step))]

    def manifest(self, step: int) -> dict[str, Any] | None:
        """The manifest of a step; None if it is missing, altered or of another step. The files are not read.

        Raises:
          CheckpointError: the disk does not answer.
        """
        try:
            return self._of_step(step, digests.read_digests(self.step(step)))
        except DamagedError:
            return None

    def verified(self, step: int) -> dict[str, Any]:
        """The manifest of a step, after every file was checked against it.

        Raises:
          DamagedError: naming what is missing or altered; or the folder is of another step and was renamed.
          CheckpointError: the disk does not answer.
        """
        return self._of_step(step, digests.verify(self.step(step)))

    def complete_steps(self) -> list[int]:
        """Steps whose manifest is there and unaltered, ascending; their files are not read."""
        return [step for step in self.steps() if self.manifest(step) is not None]

    def _of_step(self, step: int, manifest: dict[str, Any]) -> dict[str, Any]:
        if manifest.get("step") != step:
            raise DamagedError(f"it holds step {manifest.get('step')} (the folder was renamed or copied)")
        return manifest


def workdir_of_step(folder: Path) -> tuple[Workdir, int] | None:
    """(W, 40) for W/checkpoints/40, whether that folder exists or not; None for any other path."""
    number = folder.name
    if not (number.isdecimal() and str(int(number)) == number):
        return None
    workdir = Workdir(folder.parent.parent)
    return (workdir, int(number)) if workdir.checkpoints.name == folder.parent.name else None
