"""The calls to Orbax (v1 API) that checkpoints need."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from orbax.checkpoint import v1 as ocp

from harvest_jax.checkpoint import consensus
from harvest_jax.checkpoint.shared_work import brief, run_shared


def begin_save(folder: Path, items: dict[str, Any]) -> Callable[[], None]:
    """Start to write one folder of items; a collective.

    Args:
      folder: must not exist; it appears atomically at the end.
      items: trees of jax arrays, objects with Orbax's own save (Grain iterators), and "meta", a JSON dict. All are
        copied or described before this returns: arrays may then be donated, and iterators advanced.

    Returns:
      a function that waits for the end, and raises the error if there was one.
    """

    def begin() -> Any:
        with _context():
            return ocp.save_checkpointables_async(folder, items)

    response = run_shared(f"begin {folder}", begin)

    def finish() -> None:
        if jax.process_count() > 1:
            # After an error `result` waits, before it raises, for Orbax's other tasks, and those wait for the other
            # processes. The future behind it, which has no public name, has the error at once.
            response._thread_runner._future.result()
        response.result()

    return finish


def load_items(folder: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Read items of a folder whose files were verified; a collective.

    Args:
      folder: written by `begin_save`.
      wanted: for each item a tree of jax.ShapeDtypeStruct with shardings, an iterator to set, or None for JSON.

    Raises:
      CheckpointError: on all processes. The files are sound, so an older step would fail, too.
    """

    def load() -> dict[str, Any]:
        with _context():
            return ocp.load_checkpointables(folder.absolute(), wanted)

    failure, cause, loaded = None, None, {}
    try:
        loaded = run_shared(f"load {folder} {sorted(wanted)}", load)
    except Exception as error:
        failure, cause = f"{folder} is undamaged but cannot be restored: {brief(error)}", error
    consensus.raise_together(failure, cause)
    return loaded


def load_record(folder: Path) -> dict[str, Any]:
    """The JSON item of a step whose files were verified: "arrays" (path -> [dtype, shape]), "step" and others."""
    record: dict[str, Any] = load_items(folder, {"meta": None})["meta"]
    return record


def load_on_host(folder: Path, arrays: dict[str, list[Any]]) -> dict[str, np.ndarray]:
    """Whole parameters of a folder whose files were verified, on the host, whatever devices they were saved from.

    Args:
      folder: of a step, or of the frozen parameters.
      arrays: path in the item "params" -> [dtype, shape]; the paths must be all there are.

    Raises:
      CheckpointError: as `load`.
    """
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names other platforms alone
        device = jax.local_devices()[0]
    sharding = jax.sharding.SingleDeviceSharding(device)
    wanted = {
        tuple(path.split("/")): jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype), sharding=sharding)
        for path, (dtype, shape) in arrays.items()
    }
    tree = load_items(folder, {"params": traverse_util.unflatten_dict(wanted)})["params"]
    return {path: np.asarray(leaf) for path, leaf in traverse_util.flatten_dict(tree, sep="/").items()}


def hush() -> None:
    """Keep Orbax from logging a traceback for each thread of a failed save; the failure itself is raised once."""
    logging.getLogger("absl").addFilter(_not_a_thread_traceback)


def _context() -> ocp.Context:
    """Orbax with "meta" as JSON; by default it would store a dict as a tree of arrays."""
    registry = ocp.handlers.local_registry()
    registry.add(ocp.handlers.JsonHandler, checkpointable_name="meta")
    context = ocp.Context()
    context.checkpointables.registry = registry
    return context


def _not_a_thread_traceback(record: logging.LogRecord) -> bool:
    return "_SignalingThread.run() raised an exception" not in record.getMessage()
