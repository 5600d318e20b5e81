"""A small training state, its data and its checkpoints, for the tests of checkpoints."""

import functools

import flax.struct
import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from harvest_jax.checkpoint.checkpointer import Checkpointer
from harvest_jax.checkpoint.workdir import Workdir

IDENTITY = {"seed": 0, "model": {"size": "demo", "frames": (1, 2)}, "data_digest": "abc"}


@flax.struct.dataclass
class State:
    """As the trainer's."""

    step: jax.Array
    params: dict
    opt_state: object


def make_mesh(count=4):
    count = min(count, jax.device_count())
    return jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])


@functools.cache
def make_state(seed=0, devices=4):
    mesh = make_mesh(devices)
    split, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    rng = np.random.default_rng(seed)
    params = {
        "video": {"kernel": jax.device_put(rng.normal(size=(8, 6)).astype(np.float32), split)},
        "half": jax.device_put(rng.normal(size=4).astype(jnp.bfloat16), whole),
        "logit_scale": jax.device_put(np.float32(rng.normal()), whole),
    }
    layout = jax.eval_shape(optax.chain(optax.identity(), optax.scale_by_adam()).init, params)  # one part empty
    opt_state = jax.tree.map(lambda x: jax.device_put(rng.normal(size=x.shape).astype(x.dtype), whole), layout)
    return State(step=jax.device_put(np.int32(seed), whole), params=params, opt_state=opt_state)


def target(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def make_batches():
    dataset = grain.MapDataset.range(50).seed(1).shuffle().repeat().batch(4)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)))


def make_frozen(seed=0, sharded=True):
    spec = PartitionSpec("data") if sharded else PartitionSpec()
    values = np.random.default_rng(seed).normal(size=(8, 3)).astype(np.float32)
    return {"text": {"kernel": jax.device_put(values, NamedSharding(make_mesh(), spec))}}


def open_checkpointer(workdir, keep=3, identity=IDENTITY, keep_every=0):
    return Checkpointer(workdir, keep, identity, keep_every=keep_every)


def save_steps(workdir, *steps, **options):
    """One checkpoint for each step, the state of which is make_state(step) and the data position that many batches."""
    batches = make_batches()
    with open_checkpointer(workdir, **options) as checkpointer:
        checkpointer.save_frozen({})
        for step in range(1, max(steps) + 1):
            next(batches)
            if step in steps:
                checkpointer.save(step, make_state(step), batches)


def restore(workdir, **options):
    """The restored step after checking that state and data position are those of that step; None without one."""
    batches = make_batches()
    with open_checkpointer(workdir, **options) as checkpointer:
        state, frozen = checkpointer.restore(target(make_state()), {}, batches)
    if state is None:
        assert frozen is None
        return None
    step = int(state.step)
    assert_same(state, make_state(step))
    reference = make_batches()
    for _ in range(step):
        next(reference)
    np.testing.assert_array_equal(next(batches), next(reference))
    return step


def assert_same(actual, expected):
    """The same structure, bits and layout on the devices."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (x.dtype, x.shape, x.sharding) == (y.dtype, y.shape, y.sharding)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def flip(path, rng):
    data = bytearray(path.read_bytes())
    position = rng.randrange(len(data))
    data[position] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def cut_largest(folder):
    path = max(files(folder / "params"), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def finished(workdir):
    return Workdir(workdir).complete_steps()


def step_folder(workdir, step):
    return workdir / "checkpoints" / str(step)


def abstract_like(leaf, shape=None, dtype=None):
    return jax.ShapeDtypeStruct(shape or leaf.shape, dtype or leaf.dtype, sharding=leaf.sharding)
