"""Short notes that the processes of a run leave for each other, in the coordination service of JAX.

No process waits for another, and threads may call this. A run of one process has no service: what it writes is lost.
"""

from typing import Any

from jax._src import distributed  # the client has no public name; Orbax takes it from here, too

_TOP = "harvest_jax/"


def place() -> tuple[int, int]:
    """The number of this process, and of how many; without starting JAX's devices. (0, 1) for a run of one process."""
    state = distributed.global_state
    return (state.process_id, state.num_processes) if state.client is not None else (0, 1)


def write(name: str, text: str, replace: bool = False) -> None:
    """Leave a note under a name such as "failed/save 20/1".

    Args:
      name: its parts are separated by "/".
      text: what `read` gives.
      replace: whether the name may have a note already; then it is replaced.

    Raises:
      RuntimeError: the name has a note already, or the service cannot be reached.
    """
    client: Any = distributed.global_state.client
    if client is not None:
        client.key_value_set(_TOP + name, text, allow_overwrite=replace)


def read(folder: str) -> dict[str, str]:
    """The notes whose names begin with "FOLDER/", by the rest of their names.

    Raises:
      RuntimeError: the service cannot be reached.
    """
    client: Any = distributed.global_state.client
    if client is None:
        return {}
    start = f"{_TOP}{folder}/"
    return {name.removeprefix(start): text for name, text in client.key_value_dir_get(start.rstrip("/"))}
