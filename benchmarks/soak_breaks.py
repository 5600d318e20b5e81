"""The soak's negative controls: `harvest` with a fault in how it saves or resumes, which the soak has to notice.

    python -m benchmarks.soak_breaks FAULT train --config ... --workdir ...

The faults are put in from here: the package knows nothing of them.
"""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

from harvest_jax import cli, signals
from harvest_jax.compiled_programs import keep_compiled_programs


def nothing() -> None:
    """No fault: the soak must find nothing."""


def data_position() -> None:
    """A restart begins the data anew."""
    from harvest_jax.checkpoint import checkpointer

    load = checkpointer.load_items

    def without_data(folder: Any, wanted: dict[str, Any]) -> dict[str, Any]:
        return load(folder, {name: tree for name, tree in wanted.items() if name != "data"})

    checkpointer.load_items = without_data


def optimizer() -> None:
    """A restart begins with an optimizer that knows nothing."""
    import jax
    import jax.numpy as jnp

    _after_restore(lambda state: dataclasses.replace(state, opt_state=jax.tree.map(jnp.zeros_like, state.opt_state)))


def one_bit() -> None:
    """A restart changes the lowest bit of one of the parameters."""
    import jax
    import numpy as np

    def flip(state: Any) -> Any:
        leaves, tree = jax.tree.flatten(state.params)
        number = max(range(len(leaves)), key=lambda index: leaves[index].size)
        values = np.array(leaves[number])
        values.view(np.uint32).flat[values.size // 2] ^= 1
        leaves[number] = jax.device_put(values, leaves[number].sharding)
        return dataclasses.replace(state, params=jax.tree.unflatten(tree, leaves))

    _after_restore(flip)


def metrics() -> None:
    """A restart leaves the measurements of steps that it does again."""
    from harvest_jax.train import metrics

    metrics.cut = lambda path, restored_step: None


def stale_state() -> None:
    """A checkpoint has the number and the position in the data of its step, and the parameters of the one before."""
    import jax
    import jax.numpy as jnp

    from harvest_jax.checkpoint.checkpointer import Checkpointer

    save, before = Checkpointer.save, []

    def save_stale(self: Any, step: int, state: Any, data: Any) -> None:
        now = jax.tree.map(jnp.copy, state.params)
        save(self, step, dataclasses.replace(state, params=before[-1] if before else now), data)
        before[:] = [now]

    Checkpointer.save = save_stale


def unfinished() -> None:
    """A restart takes the newest folder, finished or not, and does not look at its manifest."""
    from harvest_jax.checkpoint.step_folders import UNFINISHED, StepFolders

    tidy = StepFolders._tidy

    def take_all(self: Any) -> None:
        for path in self.workdir.checkpoints.glob(f"*{UNFINISHED}"):
            target = path.with_name(path.name.removesuffix(UNFINISHED))
            if not target.exists():
                path.rename(target)
        tidy(self)

    StepFolders._tidy = take_all
    StepFolders.newest_good = lambda self: max(self.workdir.steps(), default=None)


FAULTS: dict[str, Callable[[], None]] = {
    function.__name__: function
    for function in (nothing, data_position, optimizer, one_bit, metrics, stale_state, unfinished)
}


def _after_restore(change: Callable[[Any], Any]) -> None:
    from harvest_jax.checkpoint.checkpointer import Checkpointer

    restore = Checkpointer.restore

    def restored(self: Any, target: Any, frozen: Any, data: Any) -> tuple[Any, Any]:
        state, loaded = restore(self, target, frozen, data)
        return (state if state is None else change(state)), loaded

    Checkpointer.restore = restored


def main(arguments: list[str]) -> int:
    """Put the fault in, then run the command."""
    fault, *rest = arguments
    keep_compiled_programs()  # before a fault imports JAX
    FAULTS[fault]()
    return cli.main(rest)


if __name__ == "__main__":
    sys.exit(signals.run_program("harvest", lambda: main(sys.argv[1:])))
