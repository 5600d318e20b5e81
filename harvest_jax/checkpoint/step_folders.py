"""Checkpoint folders of a workdir, for process 0: lock, clean up, quarantine, delete."""

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import socket
from pathlib import Path
from typing import Any

from harvest_jax.checkpoint.digests import DamagedError, UnfinishedError, is_folder, names_in
from harvest_jax.checkpoint.items import first_few
from harvest_jax.checkpoint.scores import best_step
from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.errors import CheckpointError

log = logging.getLogger(__name__)

UNFINISHED = ".orbax-checkpoint-tmp"  # Orbax writes into NAME.orbax-checkpoint-tmp and renames it at the end
DELETING = ".being-deleted"


class StepFolders:
    """The step folders of one workdir, which stays locked against a second run until `close`."""

    def __init__(self, workdir: Workdir):
        """Lock the workdir and remove what interrupted saves and deletions left.

        Raises:
          CheckpointError: another run uses the workdir, or the disk does not answer.
        """
        self.workdir = workdir
        if not workdir.exists:
            workdir.checkpoints.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(workdir)
        try:
            self._tidy()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Unlock the workdir."""
        self._lock.close()

    def newest_manifest(self) -> dict[str, Any] | None:
        """The newest readable manifest, or None."""
        return next(filter(None, map(self.workdir.manifest, reversed(self.workdir.steps()))), None)

    def newest_good(self) -> int | None:
        """The newest step whose files all agree with its manifest; newer ones are moved to the quarantine.

        None if there is no step, or only what a first save left that was interrupted.

        Raises:
          CheckpointError: there are checkpoints, and none of them is good. Nothing is moved then: a run that began anew
            by itself would overwrite days of work that a person may still save.
        """
        rejected: dict[int, DamagedError] = {}
        for step in reversed(self.workdir.steps()):
            try:
                self.workdir.verified(step)
            except DamagedError as error:
                rejected[step] = error
                continue
            self._reject(rejected)
            return step
        if len(rejected) > 1 or not all(isinstance(error, UnfinishedError) for error in rejected.values()):
            faults = first_few(f"step {step}: {error}" for step, error in rejected.items())
            raise CheckpointError(
                f"{self.workdir.checkpoints} holds checkpoints, and none of them is good ({faults}); nothing was "
                "moved; put a good one back, or begin anew on purpose: rename that folder, or choose another --workdir"
            )
        self._reject(rejected)
        return None

    def _reject(self, steps: dict[int, DamagedError]) -> None:
        for step, error in steps.items():
            moved = self.quarantine(self.workdir.step(step))
            log.warning("the checkpoint of step %d is rejected: %s; moved to %s", step, error, moved)

    def quarantine(self, folder: Path) -> Path:
        """Move a folder to the quarantine under a free name, and return where it is now."""
        target = self.workdir.quarantine / folder.name
        target.parent.mkdir(exist_ok=True)
        number = 0
        while target.exists():
            number += 1
            target = target.with_name(f"{folder.name}.{number}")
        folder.rename(target)
        return target

    def prune(self, keep: int, keep_every: int = 0) -> None:
        """Delete all but the newest `keep` complete steps, the best, and the multiples of `keep_every` (0: none).

        Incomplete ones stay for the next restart to judge.
        """
        best = best_step(self.workdir)
        for step in self.workdir.complete_steps()[:-keep]:
            if (best is not None and step == best[0]) or (keep_every and step % keep_every == 0):
                continue
            folder = self.workdir.step(step)
            doomed = folder.with_name(f"{step}{DELETING}")
            folder.rename(doomed)  # atomic: a kill during the deletion leaves no half step
            shutil.rmtree(doomed)

    def make_room(self, step: int) -> bool:
        """Whether the step is complete already; an incomplete folder of its name is moved to the quarantine."""
        if self.workdir.manifest(step) is not None:
            return True
        folder = self.workdir.step(step)
        if folder.exists():
            log.warning("%s is not a complete checkpoint; moved to %s", folder, self.quarantine(folder))
        return False

    def discard_unfinished(self, step: int) -> None:
        """Remove what a failed save left, to free its space."""
        shutil.rmtree(self.workdir.checkpoints / f"{step}{UNFINISHED}", ignore_errors=True)

    def _tidy(self) -> None:
        frozen = self.workdir.frozen
        steps = (self.workdir.checkpoints / name for name in names_in(self.workdir.checkpoints))
        for path in [*steps, *frozen.parent.glob(f"{frozen.name}*{UNFINISHED}")]:
            if path.name.endswith(UNFINISHED):
                log.warning("removing %s, which an interrupted save left", path)
                shutil.rmtree(path)
            elif path.name.endswith(DELETING):
                shutil.rmtree(path)
            elif not path.name.isdecimal() or not is_folder(path):
                log.warning("%s is not a checkpoint of this program; ignored", path)


def write_fault(workdir: Path, process_index: int) -> str | None:
    """Why this process cannot write to the workdir, or None. Called before the first step."""
    probe = workdir / f".write_test_{process_index}"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with open(probe, "wb") as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
        probe.unlink()
    except OSError as error:
        return f"the workdir {workdir} cannot be written: {error.strerror or error}"
    return None


def _lock(workdir: Workdir) -> Any:
    """An open, locked file. The system frees the lock when the process ends, in whatever way."""
    file = open(workdir.lock, "a+")  # noqa: SIM115 - open as long as the run
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            file.seek(0)
            owner = file.read(200).strip() or "another process"
            file.close()
            raise CheckpointError(
                f"{workdir.root} is in use by {owner}: wait for it or choose another --workdir"
            ) from None
        log.warning("%s cannot be locked (%s): make sure that no second run uses it", workdir.root, error.strerror)
        return file
    with contextlib.suppress(OSError):
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
    return file
