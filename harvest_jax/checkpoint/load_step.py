"""One chosen checkpoint of a run as a training state; `Checkpointer.restore` takes the newest."""

from typing import Any

from harvest_jax.checkpoint import consensus
from harvest_jax.checkpoint.digests import DamagedError
from harvest_jax.checkpoint.items import abstract, check_spec, from_items, spec, to_items
from harvest_jax.checkpoint.orbax_files import load_items, load_record
from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.errors import CheckpointError


def load_step(workdir: Workdir, step: int, target: Any) -> Any:
    """The state of a complete step; a collective.

    Args:
      workdir, step: which.
      target: as for `Checkpointer.restore`.

    Raises:
      CheckpointError: the step is damaged, or has other names, shapes or dtypes.
    """
    folder = workdir.step(step)

    def verify() -> None:
        try:
            workdir.verified(step)
        except DamagedError as error:
            raise CheckpointError(f"the checkpoint {folder} is damaged: {error}") from error

    consensus.on_primary(verify)
    items = to_items(target)
    check_spec(load_record(folder)["arrays"], spec(items), folder)
    return from_items(target, load_items(folder, {name: abstract(tree) for name, tree in items.items()}))
