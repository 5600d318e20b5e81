"""Decisions that all processes of a run share. With one process every function here is trivial.

With several processes these functions are collectives: each process must call them in the same order, from its main
thread.
"""

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from harvest_jax.errors import CheckpointError


def any_process(flag: bool) -> bool:
    """Whether the flag is set on at least one process."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag, np.int32))))


def on_primary(function: Callable[[], Any]) -> Any:
    """The result of `function` on process 0, on every process; only process 0 calls it.

    Args:
      function: returns a JSON value.

    Raises:
      CheckpointError: on every process, if `function` raised it or an OSError.
    """
    answer: dict[str, Any] = {}
    if jax.process_index() == 0:
        try:
            answer = {"value": function()}
        except (CheckpointError, OSError) as error:
            if jax.process_count() == 1:
                raise CheckpointError(str(error)) from error
            answer = {"error": str(error)}
    if jax.process_count() > 1:
        answer = _from_primary(answer)
    if "error" in answer:
        raise CheckpointError(answer["error"])
    return answer["value"]


def all_gather(value: Any) -> list[Any]:
    """The JSON values of all processes, by their rank, on every process."""
    if jax.process_count() == 1:
        return [json.loads(json.dumps(value))]
    payload = np.frombuffer(json.dumps(value).encode(), np.uint8)
    # An array must have the same shape on all processes, so the lengths are sent first.
    lengths = multihost_utils.process_allgather(np.asarray(payload.size, np.int32)).tolist()
    rows = multihost_utils.process_allgather(np.pad(payload, (0, max(lengths) - payload.size)))
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def raise_together(failure: str | None, cause: BaseException | None = None) -> None:
    """Raise CheckpointError on every process if one of them has a failure, so that no process waits for another."""
    if any_process(failure is not None):
        first = next(f"process {rank}: {text}" for rank, text in enumerate(all_gather(failure)) if text is not None)
        raise CheckpointError(failure or first) from cause


def _from_primary(answer: dict[str, Any]) -> dict[str, Any]:
    payload = np.frombuffer(json.dumps(answer).encode(), np.uint8)
    # An array has the same shape on all processes of a broadcast, so the length is sent first.
    length = int(multihost_utils.broadcast_one_to_all(np.asarray(payload.size, np.int32)))
    if jax.process_index() != 0:
        payload = np.zeros(length, np.uint8)
    return json.loads(multihost_utils.broadcast_one_to_all(payload).tobytes())
