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

from harvest_jax.checkpoint import digests
from harvest_jax.checkpoint.digests import DamagedError
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
          CheckpointError: another run uses the workdir.
        """
        self.workdir = workdir
        workdir.checkpoints.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(workdir)
        self._tidy()

    def close(self) -> None:
        """Unlock the workdir."""
        self._lock.close()

    def newest_manifest(self) -> dict[str, Any] | None:
        """The newest readable manifest, or None."""
        return next(filter(None, map(self.workdir.manifest, reversed(self.workdir.steps()))), None)

    def newest_good(self) -> int | None:
        """The newest step whose files all agree with its manifest; newer ones are moved to the quarantine."""
        for step in reversed(self.workdir.steps()):
            folder = self.workdir.step(step)
            try:
                digests.verify(folder)
                return step
            except DamagedError as error:
                moved = self.quarantine(folder)
                log.warning("the checkpoint of step %d is rejected: %s; moved to %s", step, error, moved)
        return None

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

    def prune(self, keep: int) -> None:
        """Delete all but the newest `keep` complete steps, and the best.

        Incomplete ones stay for the next restart to judge.
        """
        best = best_step(self.workdir)
        for step in self.workdir.complete_steps()[:-keep]:
            if best is not None and step == best[0]:
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
        for path in [*self.workdir.checkpoints.iterdir(), *frozen.parent.glob(f"{frozen.name}*{UNFINISHED}")]:
            if path.name.endswith(UNFINISHED):
                log.warning("removing %s, which an interrupted save left", path)
                shutil.rmtree(path)
            elif path.name.endswith(DELETING):
                shutil.rmtree(path)
            elif not path.is_dir() or not path.name.isdecimal():
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
