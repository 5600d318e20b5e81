"""Checkpoints that survive kills, full disks and flipped bits: Orbax writes them, digests say which ones are complete.

One step is a folder of items (`params`, `opt_state`, `counters`, `data`, `meta`). The frozen parameters are written
once, in a folder of their own; each step names their digest. Saving is asynchronous: training waits only for the copy
from the devices. Writing, hashing and the deletion of old steps happen in the background.

Orbax leaves these to its user, and this file does them: flipped bits are found; a restore goes back to the newest sound
step; a failed background save is raised, by the next save or at the end; names, shapes and dtypes are compared (Orbax
casts a dtype silently); an empty folder called "7" is not a checkpoint.
"""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import grain
import jax

from harvest_jax.checkpoint import consensus, digests
from harvest_jax.checkpoint.digests import DamagedError
from harvest_jax.checkpoint.items import abstract, check_spec, from_items, spec, to_items
from harvest_jax.checkpoint.orbax_files import begin_save, hush, load_items, load_record
from harvest_jax.checkpoint.run_identity import check_identity, current_processes, same_processes, shared_position
from harvest_jax.checkpoint.shared_work import SharedWork, brief, run_shared
from harvest_jax.checkpoint.step_folders import StepFolders, write_fault
from harvest_jax.checkpoint.tree_digest import tree_digest
from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.errors import CheckpointError, Preempted

log = logging.getLogger(__name__)


class Checkpointer:
    """The checkpoints of one run in one workdir.

    A context manager. Every process of the run makes one and calls the same methods in the same order; process 0
    decides, and writes what is not an array. Order of calls: `restore`; `save_frozen` if it gave no frozen parameters;
    then `save`.

    Attributes:
      forked_from: JSON dict that every checkpoint keeps: from which state of another run this one began. Set before the
        first save; `restore` reads it. None: it began by itself.
    """

    def __init__(
        self,
        workdir: Path,
        keep: int,
        identity: dict[str, Any],
        scored_by: dict[str, Any] | None = None,
        keep_every: int = 0,
    ) -> None:
        """Open and lock the workdir.

        Args:
          workdir: a folder on a POSIX file system that all processes share; made if missing.
          keep: good steps kept, from 1 up, besides the one with the best score; older ones are deleted after a newer
            one is complete.
          identity: JSON dict of all that must not change over the life of a workdir.
          scored_by: JSON dict that checkpoints keep: how the run evaluates them; None if it does not.
          keep_every: steps that are multiples of it are never deleted; 0: none.

        Raises:
          CheckpointError: the folder cannot be written, another run uses it, or it holds a run of another identity.
        """
        self.workdir = Workdir(Path(workdir).absolute())
        self.keep = keep
        self.keep_every = keep_every
        self.forked_from: dict[str, Any] | None = None
        self._identity = _json_copy(identity)
        self._noted = {"scored_by": _json_copy(scored_by)} if scored_by else {}
        self._frozen_digest: str | None = None
        self._folders: StepFolders | None = None
        self._pending: tuple[int, SharedWork] | None = None  # the step being saved
        self._saved: set[int] = set()
        self.save_seconds = 0.0  # that the last complete save took; 0 before
        self.completed: Callable[[int], None] = lambda step: None  # called on process 0, in a thread, after each save
        hush()
        consensus.raise_together(write_fault(self.workdir.root, jax.process_index()))
        try:
            newest = consensus.on_primary(self._open_folders)
            if newest is not None:
                check_identity(newest, self._identity, self.workdir)
        except CheckpointError:
            self._release()
            raise

    def restore(self, target: Any, frozen: Any, data: grain.DatasetIterator | None) -> tuple[Any, Any]:
        """The newest sound step and the frozen parameters. Damaged newer steps go to the quarantine with a warning.

        Args:
          target: as the state of `save`, of jax.ShapeDtypeStruct with shardings (or of arrays).
          frozen: the same for the frozen parameters; may be empty.
          data: set to the saved position.

        Returns:
          (state of the type of `target`, frozen parameters). (None, None) if there is no sound step, then `data` stays
          as it is. (state, None) if the copy of the frozen parameters is damaged or missing: give them to
          `save_frozen`.

        Raises:
          CheckpointError: the step belongs to another config or to other frozen parameters, or has other names, shapes
            or dtypes (an older step would be no better); there are checkpoints, and all are damaged; or one cannot be
            read at the moment. Nothing was moved then.
        """
        self.wait()
        step = consensus.on_primary(lambda: self._primary.newest_good())
        if step is None:
            return None, None
        folder = self.workdir.step(step)
        meta = load_record(folder)
        check_identity(meta["run_identity"], self._identity, self.workdir)
        loaded_frozen = self._load_frozen(frozen)
        if loaded_frozen is not None and meta["frozen_digest"] != self._frozen_digest:
            raise CheckpointError(_other_frozen(folder, meta["frozen_digest"], self._frozen_digest))
        items = to_items(target)
        check_spec(meta["arrays"], spec(items), folder)
        wanted = {name: abstract(tree) for name, tree in items.items()}
        same = same_processes(meta["topology"])
        if data is not None and same:
            wanted["data"] = data
        elif data is not None:
            data.set_state(shared_position(folder))
        loaded = load_items(folder, wanted)
        loaded.pop("data", None)
        self.forked_from = meta.get("forked_from")
        self._saved = {step}
        return from_items(target, loaded), loaded_frozen

    def save_frozen(self, frozen: Any) -> str:
        """Write the frozen parameters, unless they are there already, and return their digest (hex SHA-256).

        A copy that is damaged, incomplete, or of a run that never saved a step is moved to the quarantine and replaced.

        Args:
          frozen: a tree of arrays; may be empty.

        Raises:
          CheckpointError: the workdir's steps belong to other frozen parameters, or the disk refuses.
        """
        digest = tree_digest(frozen)
        if not consensus.on_primary(lambda: self._frozen_is_there(digest)) and jax.tree.leaves(frozen):
            failure, cause = None, None
            try:
                written = begin_save(self.workdir.frozen, {"params": frozen})
                run_shared(f"write {self.workdir.frozen}", written)
                if jax.process_index() == 0:
                    record = {"tree_digest": digest, "arrays": spec({"params": frozen})}
                    digests.write_digests(self.workdir.frozen, record)
            except Exception as error:
                failure, cause = f"{self.workdir.frozen} could not be written: {brief(error)}", error
            consensus.raise_together(failure, cause)
        self._frozen_digest = digest
        return digest

    def save(self, step: int, state: Any, data: grain.DatasetIterator | None) -> None:
        """Begin to save a step, after the save before it has ended. When this returns the state may be donated.

        A step that is saved already is left as it is.

        Args:
          step: the number of finished steps.
          state: mapping or dataclass with `params`, `opt_state` and any more fields (the step counter); jax arrays.
          data: its position now is saved, for each process its own.

        Raises:
          CheckpointError: the save before this one failed, or this one could not begin.
        """
        if step in self._saved:
            return
        self.wait()
        began = time.monotonic()
        if consensus.on_primary(lambda: self._primary.make_room(step)):
            self._saved.add(step)
            return
        items = to_items(state)
        record = {
            "step": step,
            "run_identity": self._identity,
            "frozen_digest": self._frozen_digest,
            "topology": current_processes(),
            **self._noted,
            **({"forked_from": _json_copy(self.forked_from)} if self.forked_from else {}),
        }
        # "user" is empty: versions up to 0.1.0 need it to restore.
        contents = items | {"meta": record | {"arrays": spec(items), "user": {}}}
        if data is not None:
            contents["data"] = data
        folder = self.workdir.step(step)
        failure, cause = None, None
        try:
            written = begin_save(folder, contents)
        except Exception as error:
            failure, cause = self._not_saved(step, error), error
        consensus.raise_together(failure, cause)
        self._pending = step, SharedWork(f"save {step}", lambda: self._commit(written, folder, record, began))
        self._saved.add(step)

    def wait(self) -> None:
        """Wait until the save in progress is complete on the disk.

        Raises:
          CheckpointError: it failed, on this process or another.
        """
        pending, self._pending = self._pending, None
        failure = pending[1].wait() if pending else None
        message = None
        if pending and failure:
            self._saved.discard(pending[0])
            message = self._not_saved(pending[0], failure)
        consensus.raise_together(message, failure)

    def close(self) -> None:
        """Wait for the save in progress and unlock the workdir.

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
            self.close()  # Preempted says "saved", on every process: if the save failed, its error replaces it
            return
        # Another error ends the run and takes precedence. The other processes may not reach this point, so no
        # collective is called.
        pending, self._pending = self._pending, None
        if pending and not issubclass(kind, KeyboardInterrupt):
            failure = pending[1].wait()
            if failure is not None:
                log.warning("%s", self._not_saved(pending[0], failure))
        self._release()

    @property
    def _primary(self) -> StepFolders:
        if self._folders is None:
            raise RuntimeError("only process 0 handles the folders, and not after close()")
        return self._folders

    def _open_folders(self) -> dict[str, Any] | None:
        """Lock and tidy the workdir; returns the run identity of its newest complete step."""
        self._folders = StepFolders(self.workdir)
        newest = self._folders.newest_manifest()
        return newest["run_identity"] if newest else None

    def _release(self) -> None:
        if self._folders is not None:
            self._folders.close()
            self._folders = None

    def _load_frozen(self, target: Any) -> Any:
        """The frozen parameters as they were saved; None (and a warning) if they are damaged or missing."""
        if not jax.tree.leaves(target):
            self._frozen_digest = tree_digest(target)
            return target
        folder = self.workdir.frozen
        manifest = consensus.on_primary(self._verified_frozen)
        if manifest is None:
            return None
        check_spec(manifest["arrays"], spec({"params": target}), folder)
        frozen = load_items(folder, {"params": abstract(target)})["params"]
        digest = tree_digest(frozen)
        if digest != manifest["tree_digest"]:
            raise CheckpointError(
                f"the frozen parameters in {folder} do not match their digest (found {digest}, expected "
                f"{manifest['tree_digest']}): move that folder away and run the same command again"
            )
        self._frozen_digest = digest
        return frozen

    def _verified_frozen(self) -> dict[str, Any] | None:
        try:
            return digests.verify(self.workdir.frozen)
        except DamagedError as error:
            log.warning("%s cannot be used: %s; the frozen parameters are made again", self.workdir.frozen, error)
            return None

    def _frozen_is_there(self, digest: str) -> bool:
        """Whether the frozen parameters on disk are these; others are moved to the quarantine if no step needs them."""
        newest = self._primary.newest_manifest()
        if newest is not None and newest["frozen_digest"] != digest:
            raise CheckpointError(_other_frozen(self.workdir.step(newest["step"]), newest["frozen_digest"], digest))
        if not self.workdir.frozen.exists():
            return False
        try:
            if digests.verify(self.workdir.frozen)["tree_digest"] == digest:
                return True
            reason = "they belong to another model"
        except DamagedError as error:
            reason = str(error)
        moved = self._primary.quarantine(self.workdir.frozen)
        log.warning("the frozen parameters in %s are replaced: %s; moved to %s", self.workdir.frozen, reason, moved)
        return False

    def _commit(self, written: Callable[[], None], folder: Path, record: dict[str, Any], began: float) -> None:
        """In the background: wait for Orbax, then complete the step with its digests, then delete old steps."""
        written()  # on process 0 this includes the parts of all processes
        if jax.process_index() == 0:
            digests.write_digests(folder, record)
            self.completed(record["step"])
            try:
                self._primary.prune(self.keep, self.keep_every)
            except (OSError, CheckpointError) as error:  # the step is safe; the space is freed after the next save
                log.warning("an old checkpoint could not be deleted: %s", error)
        self.save_seconds = time.monotonic() - began

    def _not_saved(self, step: int, error: BaseException) -> str:
        message = f"step {step} was not saved in {self.workdir.root}: {brief(error)}"
        if self._folders is not None:
            self._folders.discard_unfinished(step)
            last = max(self.workdir.complete_steps(), default=None)
            message += f"; the last good checkpoint is {'none' if last is None else f'step {last}'}"
        return f"{message}; correct this and run the same command again"


def _other_frozen(step: Path, saved: str | None, current: str | None) -> str:
    return (
        f"{step} belongs to frozen parameters with the digest {saved}, the model to train has {current}: start from "
        "the same model as before (model.init_from), or choose another --workdir"
    )


def _json_copy(value: dict[str, Any]) -> dict[str, Any]:
    """As it will be read back (tuples become lists); what JSON cannot hold fails here, not in the background."""
    return json.loads(json.dumps(value))
