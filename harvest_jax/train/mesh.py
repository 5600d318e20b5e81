"""The device mesh and how arrays lie on it: the batch over all devices, parameters split over `fsdp`.

Parameters are never split between slices: devices of two slices exchange over the slow network only what data
parallelism needs, gradients and embeddings.

Axes are Auto: `jax.make_mesh` now defaults to Explicit, which refuses the contrastive product of two batch-sharded
matrices.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from harvest_jax.config.run import MeshFields
from harvest_jax.errors import ConfigError

BATCH = PartitionSpec(("data", "fsdp"))  # the first axis of every batch array
REPLICATED = PartitionSpec()
MIN_SPLIT = 2**14  # numbers; to gather a smaller array costs more than to hold it


def make_mesh(fields: MeshFields, batch_size: int, devices: Any = None) -> Mesh:
    """A (data, fsdp) mesh over all devices; `data` goes over the slices first, then over the devices of a slice.

    Raises:
      ConfigError: the devices or the batch cannot be divided as asked, naming both numbers.
    """
    devices = list(jax.devices() if devices is None else devices)
    slices, by_process = _slices(fields.dcn_data, devices)
    count = len(devices) // slices
    data = count // fields.fsdp if fields.data == -1 else fields.data
    if data * fields.fsdp != count or data < 1:
        where = "of this job" if slices == 1 else f"of each of the {slices} slices"
        raise ConfigError(
            f"mesh.data={fields.data} x mesh.fsdp={fields.fsdp} does not make the {count} devices {where}"
        )
    if batch_size % len(devices):
        raise ConfigError(f"train.batch_size={batch_size} cannot be divided over {len(devices)} devices")
    # jax.make_mesh refuses to split an axis of a torus (4 x 4 x 4 chips as 8 x 8).
    shape = (data, fields.fsdp)
    try:
        if slices == 1:
            grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        else:
            grid = mesh_utils.create_hybrid_device_mesh(
                shape, (slices, 1), devices, process_is_granule=by_process, allow_split_physical_axes=True
            )
    except (NotImplementedError, ValueError) as error:
        raise ConfigError(
            f"mesh.data={data} x mesh.fsdp={fields.fsdp} does not fit these {count} devices ({error}): try "
            "another mesh.fsdp"
        ) from error
    return Mesh(grid, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def _slices(asked: int, devices: Sequence[Any]) -> tuple[int, bool]:
    """How many slices the mesh has, and whether they are processes.

    JAX gives each device the number of its TPU slice, or of its machine of GPUs; on CPUs a process stands for a slice.
    By default only TPU slices count: GPUs of several machines can well share one split state.
    """
    numbered = len({getattr(device, "slice_index", 0) for device in devices})
    processes = len({device.process_index for device in devices})
    tpu = devices[0].platform == "tpu"
    slices = (numbered if tpu else 1) if asked == -1 else asked
    if slices == numbered or (slices == 1 and not tpu):
        return slices, False
    if slices == processes and numbered == 1:
        return slices, True
    raise ConfigError(
        f"mesh.dcn_data={asked}, but the {len(devices)} devices are in {numbered} slice(s) and {processes} process(es)"
        ": leave mesh.dcn_data=-1, or set one of these numbers"
    )


def parameter_spec(shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
    """Split the longest axis that `fsdp` divides; small arrays, and those without such an axis, stay whole."""
    if fsdp == 1 or np.prod(shape, dtype=np.int64) < MIN_SPLIT:
        return REPLICATED
    axes = [axis for axis, length in enumerate(shape) if length % fsdp == 0]
    if not axes:
        return REPLICATED
    longest = max(axes, key=lambda axis: shape[axis])
    return PartitionSpec(*[None] * longest, "fsdp")


def state_shardings(tree: Any, mesh: Mesh) -> Any:
    """A NamedSharding for each array (or ShapeDtypeStruct) of a tree of parameters or optimizer state."""
    return jax.tree.map(lambda leaf: NamedSharding(mesh, parameter_spec(leaf.shape, mesh.shape["fsdp"])), tree)


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, REPLICATED)


def with_shardings(shapes: Any, shardings: Any) -> Any:
    """The ShapeDtypeStructs of `shapes` with these shardings."""
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), shapes, shardings
    )


def fetch(tree: Any, mesh: Mesh) -> Any:
    """Whole arrays on the host, on every process, from arrays split in any way."""
    whole = jax.jit(lambda x: x, out_shardings=replicated(mesh))
    return jax.tree.map(lambda leaf: np.asarray(whole(leaf)), tree)


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Global arrays from this process's rows of the global batch, split over all devices by the first axis."""
    sharding = NamedSharding(mesh, BATCH)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}
