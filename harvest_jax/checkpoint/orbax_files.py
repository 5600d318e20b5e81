"""The few calls to Orbax (v1 API) that checkpoints are made of, and a save that goes on in the background."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orbax.checkpoint import v1 as ocp

from harvest_jax.checkpoint import consensus


def begin_save(folder: Path, items: dict[str, Any]) -> Callable[[], None]:
    """Start writing one folder of items; collective.

    Args:
      folder: must not exist; it appears in one piece at the end.
      items: trees of jax arrays, objects with Orbax's own save (Grain iterators), and "meta", a JSON dict. All are
        copied or described before this returns, so that arrays may be donated and iterators advanced.

    Returns:
      a function that waits for the end, and raises what went wrong.
    """
    with _context():
        return ocp.save_checkpointables_async(folder, items).result


def load(folder: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Read items of a folder whose files were verified; collective.

    Args:
      folder: written by `begin_save`.
      wanted: for each item a tree of jax.ShapeDtypeStruct with shardings, an iterator to be set, or None for JSON.

    Raises:
      CheckpointError: on all processes. The files are whole, so this is no damage to be walked past.
    """
    failure, cause, loaded = None, None, {}
    try:
        with _context():
            loaded = ocp.load_checkpointables(folder, wanted)
    except Exception as error:
        failure, cause = f"{folder} is whole but cannot be restored: {brief(error)}", error
    consensus.raise_together(failure, cause)
    return loaded


def brief(error: BaseException) -> str:
    """One line for an error of Orbax, of Grain or of the system."""
    text = str(error)
    if "No space left on device" in text:
        return "no space left on the disk"
    return f"{type(error).__name__}: {text.splitlines()[0][:300] if text else 'no message'}"


def hush() -> None:
    """Keep Orbax from logging a traceback for each thread of a failed save: the failure is raised, once."""
    logging.getLogger("absl").addFilter(_not_raised_anyway)


class BackgroundSave:
    """The rest of a save, in a thread that does not keep the program from ending."""

    def __init__(self, step: int, work: Callable[[], None]):
        self.step = step
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"save-{step}", daemon=True)
        self._thread.start()

    def wait(self) -> BaseException | None:
        """Wait for the end, and return what went wrong."""
        self._thread.join()
        return self._error

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # reported by wait(); a thread has nobody to raise to
            self._error = error


def _context() -> ocp.Context:
    """Orbax with "meta" as JSON; left alone it would store a dict as a tree of arrays."""
    registry = ocp.handlers.local_registry()
    registry.add(ocp.handlers.JsonHandler, checkpointable_name="meta")
    context = ocp.Context()
    context.checkpointables.registry = registry
    return context


def _not_raised_anyway(record: logging.LogRecord) -> bool:
    return "_SignalingThread.run() raised an exception" not in record.getMessage()
