"""The folders of a training workdir on disk: which steps are there, which of them are good, what becomes of the rest.

    workdir/frozen_text/           the frozen parameters, written once
    workdir/checkpoints/<step>/    one folder a step, with a MANIFEST.json once it counts
    workdir/quarantine/            what was rejected at a restart: moved, never deleted

Only process 0 of a run comes here.
"""

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
from harvest_jax.errors import CheckpointError

log = logging.getLogger(__name__)

UNFINISHED = ".orbax-checkpoint-tmp"  # Orbax writes into NAME.orbax-checkpoint-tmp and renames at the end
DELETING = ".being-deleted"


class StepFolders:
    """Finds, rejects and prunes the steps of one workdir, which it locks against a second run until `close`."""

    def __init__(self, workdir: Path):
        """Lock the workdir and remove what interrupted saves and deletions left.

        Raises:
          CheckpointError: another run is using the workdir.
        """
        self.workdir = workdir
        self.root = workdir / "checkpoints"
        self.root.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(workdir)
        self._tidy()

    def close(self) -> None:
        """Give the workdir free for another run."""
        self._lock.close()

    def steps(self) -> list[int]:
        """The numbers of all step folders, good or not, ascending."""
        names = [path.name for path in self.root.iterdir() if path.is_dir()]
        return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)

    def finished(self) -> list[int]:
        """Steps whose manifest is there and unaltered; their files are not read."""
        return [step for step in self.steps() if self._manifest(step) is not None]

    def newest_manifest(self) -> dict[str, Any] | None:
        """The newest readable manifest, or None."""
        return next(filter(None, map(self._manifest, reversed(self.steps()))), None)

    def newest_good(self) -> int | None:
        """The newest step whose files all agree with its manifest; the newer ones go to the quarantine."""
        for step in reversed(self.steps()):
            try:
                digests.verify(self.root / str(step))
                return step
            except DamagedError as error:
                moved = self.quarantine(self.root / str(step))
                log.warning("the checkpoint of step %d is rejected: %s; moved to %s", step, error, moved)
        return None

    def quarantine(self, folder: Path) -> Path:
        """Move a folder aside under a name that is free, and return where it is now."""
        target = self.workdir / "quarantine" / folder.name
        target.parent.mkdir(exist_ok=True)
        number = 0
        while target.exists():
            number += 1
            target = target.with_name(f"{folder.name}.{number}")
        folder.rename(target)
        return target

    def prune(self, keep: int) -> None:
        """Delete all but the newest `keep` finished steps. Unfinished ones are left for the next restart to judge."""
        for step in self.finished()[:-keep]:
            doomed = self.root / f"{step}{DELETING}"
            (self.root / str(step)).rename(doomed)  # in one piece: a kill while deleting leaves no half step
            shutil.rmtree(doomed)

    def make_room(self, step: int) -> bool:
        """Whether the step is there and finished already; if its folder is there and unfinished, it is moved aside."""
        folder = self.root / str(step)
        if self._manifest(step) is not None:
            return True
        if folder.exists():
            log.warning("%s is no finished checkpoint; moved to %s", folder, self.quarantine(folder))
        return False

    def discard_unfinished(self, step: int) -> None:
        """Remove what a failed save left, to give its space back."""
        shutil.rmtree(self.root / f"{step}{UNFINISHED}", ignore_errors=True)

    def _manifest(self, step: int) -> dict[str, Any] | None:
        try:
            return digests.read_manifest(self.root / str(step))
        except DamagedError:
            return None

    def _tidy(self) -> None:
        for path in [*self.root.iterdir(), *self.workdir.glob(f"frozen_text*{UNFINISHED}")]:
            if path.name.endswith(UNFINISHED):
                log.warning("removing %s, which an interrupted save left", path)
                shutil.rmtree(path)
            elif path.name.endswith(DELETING):
                shutil.rmtree(path)
            elif not path.is_dir() or not path.name.isdecimal():
                log.warning("%s is no checkpoint of this program; ignored", path)


def write_fault(workdir: Path, process_index: int) -> str | None:
    """Why this process cannot write to the workdir, found out before the first step rather than after a thousand."""
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


def _lock(workdir: Path) -> Any:
    """An open, locked file. The system frees the lock when the process ends, however it ends."""
    path = workdir / ".lock"
    file = open(path, "a+")  # noqa: SIM115 - open as long as the run
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            file.seek(0)
            owner = file.read(200).strip() or "another process"
            file.close()
            raise CheckpointError(f"{workdir} is in use by {owner}: wait for it or choose another --workdir") from None
        log.warning("%s cannot be locked (%s): make sure that no second run uses it", workdir, error.strerror)
        return file
    with contextlib.suppress(OSError):
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
    return file
