"""Checkpoints that survive kills, full disks and flipped bits: Orbax writes, a manifest of digests says what counts.

One step is a folder of items (`params`, `opt_state`, `counters`, `data`, `meta`); the frozen parameters are written
once and apart, and each step's meta names their digest. Saving is asynchronous: only the copy from the devices holds up
the training; writing, hashing and the removal of old steps happen behind it.

What Orbax leaves to its user, and this file does: flipped bits are found; the restore walks back to the newest good
step; a failed background save is raised, at the next save or at the end; names, shapes and dtypes are compared here
(Orbax casts a dtype silently); an empty folder called "7" is no checkpoint.
"""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import grain
import jax

from harvest_jax.checkpoint import consensus, digests
from harvest_jax.checkpoint.digests import DamagedError
from harvest_jax.checkpoint.items import abstract, check_spec, from_items, spec, to_items
from harvest_jax.checkpoint.orbax_files import BackgroundSave, begin_save, brief, hush, load
from harvest_jax.checkpoint.run_identity import check_identity, same_processes, shared_position, topology
from harvest_jax.checkpoint.workdir import StepFolders, write_fault
from harvest_jax.errors import CheckpointError, Preempted

log = logging.getLogger(__name__)


class Checkpointer:
    """The checkpoints of one run in one workdir.

    A context manager. Every process of the run makes one and calls the same methods in the same order; process 0
    decides and writes what is not an array. Call `save_frozen` or `load_frozen` first, then restore, then save.
    """

    def __init__(self, workdir: Path, save_every: int, keep: int, run_identity: dict[str, Any]):
        """Take the workdir in use.

        Args:
          workdir: a folder on a POSIX file system that all processes share; made if missing.
          save_every: steps between two saves.
          keep: good steps kept, from 1 up; older ones are deleted after a newer one is safe.
          run_identity: JSON dict of all that must not change over the life of a workdir.

        Raises:
          CheckpointError: the folder cannot be written, another run uses it, or it holds a run of another identity.
        """
        self.workdir = Path(workdir).absolute()
        self.save_every = save_every
        self.keep = keep
        self._identity = _json_copy(run_identity)
        self._frozen_folder = self.workdir / "frozen_text"
        self._frozen_digest: str | None = None
        self._folders: StepFolders | None = None
        self._pending: BackgroundSave | None = None
        self._saved: set[int] = set()
        hush()
        consensus.raise_together(write_fault(self.workdir, jax.process_index()))
        try:
            newest = consensus.on_primary(self._open_folders)
            if newest is not None:
                check_identity(newest, self._identity, self.workdir)
        except CheckpointError:
            self._release()
            raise

    # The frozen parameters

    def save_frozen(self, frozen: Any) -> str:
        """Write the frozen parameters, if they are not there already, and return their digest (hex SHA-256).

        A copy that is damaged, unfinished, or of a run that never saved a step is moved to the quarantine and replaced.

        Args:
          frozen: a tree of arrays; may be empty.

        Raises:
          CheckpointError: the workdir's steps belong to other frozen parameters, or the disk refuses.
        """
        digest = digests.tree_digest(frozen)
        if not consensus.on_primary(lambda: self._frozen_is_there(digest)) and jax.tree.leaves(frozen):
            failure, cause = None, None
            try:
                begin_save(self._frozen_folder, {"params": frozen})()
                if jax.process_index() == 0:
                    record = {"tree_digest": digest, "arrays": spec({"params": frozen})}
                    digests.write_manifest(self._frozen_folder, record)
            except Exception as error:
                failure, cause = f"{self._frozen_folder} could not be written: {brief(error)}", error
            consensus.raise_together(failure, cause)
        self._frozen_digest = digest
        return digest

    def load_frozen(self, target: Any) -> Any:
        """The frozen parameters as they were saved.

        Args:
          target: their tree of jax.ShapeDtypeStruct with shardings (or of arrays).

        Raises:
          CheckpointError: missing, damaged, or of other names, shapes or dtypes.
        """
        if not jax.tree.leaves(target):
            self._frozen_digest = digests.tree_digest(target)
            return target
        manifest = consensus.on_primary(self._verified_frozen)
        check_spec(manifest["arrays"], spec({"params": target}), self._frozen_folder)
        frozen = load(self._frozen_folder, {"params": abstract(target)})["params"]
        digest = digests.tree_digest(frozen)
        if digest != manifest["tree_digest"]:
            raise CheckpointError(f"{self._frozen_folder} reads back as {digest}, not as {manifest['tree_digest']}")
        self._frozen_digest = digest
        return frozen

    # The steps

    @property
    def latest_step(self) -> int | None:
        """The newest step that was finished (its files are not read again); None if there is none."""
        return consensus.on_primary(lambda: max(self._primary.finished(), default=None))

    def due(self, step: int) -> bool:
        """Whether a step is one of those that are saved without being forced."""
        return step % self.save_every == 0

    def save(
        self,
        step: int,
        state: Any,
        data_iterator: grain.DatasetIterator | None,
        meta: Mapping[str, Any],
        force: bool = False,
    ) -> bool:
        """Begin to save a step, after the save before it has ended; on return the state may be donated.

        Args:
          step: the number of finished steps. Saved if `save_every` divides it.
          state: mapping or dataclass with `params`, `opt_state` and any more fields (the step counter); jax arrays.
          data_iterator: its position now is saved, for each process its own.
          meta: JSON dict, returned by `restore_latest_good`.
          force: save whatever `save_every` says.

        Returns:
          whether a save was begun; False for a step that is not due or is saved already.

        Raises:
          CheckpointError: the save before this one failed, or this one could not begin.
        """
        if step in self._saved or not (force or self.due(step)):
            return False
        self.wait()
        if consensus.on_primary(lambda: self._primary.make_room(step)):
            self._saved.add(step)
            return False
        items = to_items(state)
        record = {
            "step": step,
            "run_identity": self._identity,
            "frozen_digest": self._frozen_digest,
            "topology": topology(),
        }
        contents = items | {"meta": record | {"arrays": spec(items), "user": _json_copy(dict(meta))}}
        if data_iterator is not None:
            contents["data"] = data_iterator
        folder = self._step_folder(step)
        failure, cause = None, None
        try:
            written = begin_save(folder, contents)
        except Exception as error:
            failure, cause = self._not_saved(step, error), error
        consensus.raise_together(failure, cause)
        self._pending = BackgroundSave(step, lambda: self._commit(written, folder, record))
        self._saved.add(step)
        return True

    def restore_latest_good(
        self, target_state: Any, data_iterator: grain.DatasetIterator | None
    ) -> tuple[Any, dict[str, Any]] | None:
        """The newest step that is whole, or None if there is none; rejected ones go to the quarantine with a warning.

        Args:
          target_state: as for `save`, of jax.ShapeDtypeStruct with shardings (or of arrays).
          data_iterator: set to the saved position.

        Returns:
          (state of the type of `target_state`, the saved meta with "step" added).

        Raises:
          CheckpointError: the step belongs to another config, to other frozen parameters, or has other names, shapes
            or dtypes. (An older step would be no better.)
        """
        self.wait()
        step = consensus.on_primary(lambda: self._primary.newest_good())
        if step is None:
            return None
        folder = self._step_folder(step)
        meta = load(folder, {"meta": None})["meta"]
        check_identity(meta["run_identity"], self._identity, self.workdir)
        if meta["frozen_digest"] != self._frozen_digest:
            raise CheckpointError(_frozen_mismatch(folder, meta["frozen_digest"], self._frozen_digest))
        items = to_items(target_state)
        check_spec(meta["arrays"], spec(items), folder)
        wanted = {name: abstract(tree) for name, tree in items.items()}
        same = same_processes(meta["topology"])
        if data_iterator is not None and same:
            wanted["data"] = data_iterator
        elif data_iterator is not None:
            data_iterator.set_state(shared_position(folder))
        loaded = load(folder, wanted)
        loaded.pop("data", None)
        self._saved = {step}
        return from_items(target_state, loaded), meta["user"] | {"step": step}

    def wait(self) -> None:
        """Wait until the save in flight is safe on the disk.

        Raises:
          CheckpointError: it failed, on this process or another.
        """
        pending, self._pending = self._pending, None
        failure = pending.wait() if pending else None
        message = None
        if pending and failure:
            self._saved.discard(pending.step)
            message = self._not_saved(pending.step, failure)
        consensus.raise_together(message, failure)

    def close(self) -> None:
        """Wait for the save in flight and leave the workdir.

        Raises:
          CheckpointError: the last save failed.
        """
        try:
            self.wait()
        finally:
            self._release()

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, Preempted):
            self.close()  # Preempted says "saved" and comes on every process: it must not say so of a save that failed
            return
        # Another error is on its way and goes first; the other processes may not be here, so nothing is agreed upon.
        pending, self._pending = self._pending, None
        if pending and not issubclass(kind, KeyboardInterrupt):
            failure = pending.wait()
            if failure is not None:
                log.warning("%s", self._not_saved(pending.step, failure))
        self._release()

    # Behind the scenes

    @property
    def _primary(self) -> StepFolders:
        if self._folders is None:
            raise RuntimeError("only process 0 handles the folders, and not after close()")
        return self._folders

    def _open_folders(self) -> dict[str, Any] | None:
        """Lock and tidy the workdir; the run identity of its newest finished step."""
        self._folders = StepFolders(self.workdir)
        newest = self._folders.newest_manifest()
        return newest["run_identity"] if newest else None

    def _release(self) -> None:
        if self._folders is not None:
            self._folders.close()
            self._folders = None

    def _step_folder(self, step: int) -> Path:
        return self.workdir / "checkpoints" / str(step)

    def _frozen_is_there(self, digest: str) -> bool:
        """Whether the frozen parameters on disk are these; other ones are moved aside if no step needs them."""
        if not self._frozen_folder.exists():
            return False
        try:
            saved = digests.verify(self._frozen_folder)["tree_digest"]
            if saved == digest:
                return True
            if self._primary.finished():
                raise CheckpointError(_frozen_mismatch(self._frozen_folder, saved, digest))
            reason = "they are other ones"
        except DamagedError as error:
            reason = str(error)
        moved = self._primary.quarantine(self._frozen_folder)
        log.warning("the frozen parameters in %s are replaced: %s; moved to %s", self._frozen_folder, reason, moved)
        return False

    def _verified_frozen(self) -> dict[str, Any]:
        try:
            return digests.verify(self._frozen_folder)
        except DamagedError as error:
            message = f"{self._frozen_folder} cannot be used: {error}; start from the model again"
            raise CheckpointError(message) from error

    def _commit(self, written: Callable[[], None], folder: Path, record: dict[str, Any]) -> None:
        """In the background: wait for Orbax, then make the step count, then drop old ones."""
        written()  # on process 0 this includes the parts of all processes
        if jax.process_index() == 0:
            digests.write_manifest(folder, record)
            try:
                self._primary.prune(self.keep)
            except OSError as error:  # the step is safe; space not freed now is freed after the next save
                log.warning("an old checkpoint could not be deleted: %s", error)

    def _not_saved(self, step: int, error: BaseException) -> str:
        message = f"step {step} was not saved in {self.workdir}: {brief(error)}"
        if self._folders is not None:
            self._folders.discard_unfinished(step)
            last = max(self._folders.finished(), default=None)
            message += f"; the last good checkpoint is {'none' if last is None else f'step {last}'}"
        return f"{message}; mend that and run the same command again"


def _frozen_mismatch(where: Path, saved: str | None, current: str | None) -> str:
    return (
        f"{where} belongs to frozen parameters with the digest {saved}, the model at hand has {current}: "
        "start from the same model as before, or choose another --workdir"
    )


def _json_copy(value: dict[str, Any]) -> dict[str, Any]:
    """As it will be read back (tuples become lists); what JSON cannot hold fails here, not in the background."""
    return json.loads(json.dumps(value))
