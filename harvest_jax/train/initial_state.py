"""The state at step 0, made where it shall lie: no device and no process holds a copy of all parameters.

Random parameters come out of one compiled program whose outputs are sharded. Parameters of a model folder are mapped
into memory, and each device's part is read by itself.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from harvest_jax.config.run import RunConfig
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.model.harvest import Harvest, Params
from harvest_jax.train import mesh as meshes
from harvest_jax.train.freeze import Tree, partition
from harvest_jax.train.initialise import parameters_at_random
from harvest_jax.train.program import TrainProgram
from harvest_jax.train.step import TrainState
from harvest_jax.weights.files.safetensors_writer import all_finite
from harvest_jax.weights.folder import open_parameters
from harvest_jax.weights.resize import resize_temporal

TEMPORAL = "video/temporal_embedding"


def initial_state(program: TrainProgram) -> tuple[TrainState, Tree]:
    """State at step 0 and frozen parameters: from `model.init_from`, or random without it.

    Raises:
      DataError: the folder cannot be used.
      ConfigError: it holds another model than the program's.
    """
    run = program.run
    if not run.model.init_from:
        return random_state(program)
    trained, frozen = partition(initial_parameters(run, program.model, program.mesh), run.train.lr_multipliers)
    with_optimizer = jax.jit(program.step().init_state, donate_argnums=0, out_shardings=program.state_shardings)
    return with_optimizer(trained), frozen


def random_state(program: TrainProgram) -> tuple[TrainState, Tree]:
    """State at step 0 and frozen parameters, random whatever `model.init_from` says."""

    def make() -> tuple[TrainState, Tree]:
        params = parameters_at_random(program.run, program.model)
        trained, frozen = partition(params, program.run.train.lr_multipliers)
        return program.step().init_state(trained), frozen

    shardings = program.state_shardings, jax.tree.map(lambda leaf: leaf.sharding, program.frozen)
    return jax.jit(make, out_shardings=shardings)()


def initial_parameters(run: RunConfig, model: Harvest, mesh: jax.sharding.Mesh) -> Params:
    """Parameters at step 0 of a run with `model.init_from`: float32 arrays on the mesh, nested dict.

    The folder gives both towers, `logit_scale` for the softmax loss, and the decoder if it has the same shape. Its
    table of frames is taken as it is if the number of frames is the same, and resized (`resize_temporal`) if not. A
    model of one frame, or one whose table is zero (an image model imported with --num_frames), knows nothing of time:
    then `model.temporal_init` starts the table, and the row of its one frame is added. The rest is random.

    Raises:
      DataError: the folder cannot be used.
      ConfigError: it holds another model.
    """
    random = lambda: traverse_util.flatten_dict(parameters_at_random(run, model), sep="/")  # noqa: E731
    shapes: dict[str, Any] = jax.eval_shape(random)
    shardings = meshes.state_shardings(shapes, mesh)
    folder = Path(run.model.init_from)
    config, tensors = open_parameters(folder)
    wanted = [path for path in shapes if path.startswith(("video/", "text/"))]
    if run.train.contrastive_loss == "softmax":
        wanted.append("logit_scale")
    if config.decoder is not None and config.decoder == model.config.decoder:
        wanted += [path for path in shapes if path.startswith("decoder/") or path == "mask_embedding"]
    for path in wanted:
        found = tensors.entries[path].shape if path in tensors.entries else None
        if found != shapes[path].shape and (path != TEMPORAL or found is None):
            raise ConfigError(
                f"model.init_from={folder} holds another model than this run trains: {path} has the shape {found}, "
                f"the run wants {shapes[path].shape}"
            )
    read: dict[str, Callable[[], np.ndarray]] = {path: lambda path=path: tensors.read(path) for path in wanted}  # type: ignore[misc]
    frames, table = model.config.video.num_frames, tensors.read(TEMPORAL).astype(np.float32)
    knows_time = len(table) > 1 and table.any()
    if frames != len(table):
        read[TEMPORAL] = lambda: resize_temporal(table, frames)
    params = {path: _on_mesh(get, shardings[path], f"{folder}: {path}") for path, get in read.items()}
    random_paths = [path for path in shapes if path not in params]
    if frames > 1 and not knows_time:
        random_paths.append(TEMPORAL)
    take = lambda: {path: leaf for path, leaf in random().items() if path in random_paths}  # noqa: E731
    made = jax.jit(take, out_shardings={path: shardings[path] for path in random_paths})() if random_paths else {}
    if TEMPORAL in made:
        made[TEMPORAL] += params[TEMPORAL]
    return traverse_util.unflatten_dict(params | made, sep="/")


def _on_mesh(get: Callable[[], np.ndarray], sharding: jax.sharding.NamedSharding, name: str) -> jax.Array:
    """An array on the mesh as float32, of which this process reads the parts of its own devices only."""
    array = get()

    def part(index: Any) -> np.ndarray:
        values = np.array(array[index], np.float32)  # a copy: JAX must not go on using the mapped file
        if not all_finite(values):
            raise DataError(f"{name} holds numbers that are not finite")
        return values

    return jax.make_array_from_callback(array.shape, sharding, part)
