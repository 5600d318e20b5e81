"""The state at step 0, created directly in its sharding: no device and no process holds a copy of all parameters.

Random parameters come out of one compiled program whose outputs are sharded. Parameters of a model folder are mapped
into memory, and each device's part is read by itself.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from harvest_jax.config.run import RunConfig
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.model.config import HarvestConfig
from harvest_jax.model.harvest import Harvest, Params
from harvest_jax.train import mesh as meshes
from harvest_jax.train.freeze import Tree, partition
from harvest_jax.train.model_of_run import parameters_at_random
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

    The folder gives both towers, `logit_scale` for the softmax loss, `logit_scale` and `logit_bias` for the sigmoid
    loss if its model was trained with that, and decoder and head if they are the same. Its table of frames is taken as
    it is if the number of frames is the same, and resized (`resize_temporal`) if not. A model of one frame, or one
    whose table is zero (an image model imported with --num_frames), knows nothing of time: then `model.temporal_init`
    starts the table, and the row of its one frame is added. The rest is random.

    Raises:
      DataError: the folder cannot be used.
      ConfigError: it holds another model.
    """
    random = lambda: traverse_util.flatten_dict(parameters_at_random(run, model), sep="/")  # noqa: E731
    shapes: dict[str, Any] = jax.eval_shape(random)
    shardings = meshes.state_shardings(shapes, mesh)
    folder = Path(run.model.init_from)
    config, tensors = open_parameters(folder)
    given = [path for path in shapes if _comes_from(config, path, run, model)]
    for path in given:
        found = tensors.entries[path].shape
        if found != shapes[path].shape and path != TEMPORAL:
            raise ConfigError(
                f"model.init_from={folder} holds another model than this run trains: {path} has the shape {found}, "
                f"the run needs {shapes[path].shape}"
            )

    def on_mesh(path: str, array: np.ndarray) -> jax.Array:
        return _on_mesh(array, shardings[path], f"{folder}: {path}")

    params = {path: on_mesh(path, tensors.read(path)) for path in given if path != TEMPORAL}
    table, frames = tensors.read(TEMPORAL).astype(np.float32), model.config.video.num_frames
    knows_time = len(table) > 1 and table.any()
    params[TEMPORAL] = on_mesh(TEMPORAL, table if frames == len(table) else resize_temporal(table, frames))
    rest = [path for path in shapes if path not in params]
    if frames > 1 and not knows_time:
        rest.append(TEMPORAL)
    if rest:
        take = lambda: {path: leaf for path, leaf in random().items() if path in rest}  # noqa: E731
        made = jax.jit(take, out_shardings={path: shardings[path] for path in rest})()
        if TEMPORAL in made:
            made[TEMPORAL] += params[TEMPORAL]
        params |= made
    return traverse_util.unflatten_dict(params, sep="/")


def _comes_from(config: HarvestConfig, path: str, run: RunConfig, model: Harvest) -> bool:
    """Whether a parameter is taken from a model folder of this config."""
    if path.startswith(("decoder/", "mask_embedding")):
        return config.decoder is not None and config.decoder == model.config.decoder
    if path.startswith("head/"):  # of the same classes in the same order
        return config.head == model.config.head
    if path == "logit_scale":
        return config.logit_bias or run.train.contrastive_loss == "softmax"
    return path.startswith(("video/", "text/")) or (path == "logit_bias" and config.logit_bias)


def _on_mesh(array: np.ndarray, sharding: jax.sharding.NamedSharding, name: str) -> jax.Array:
    """A mapped array on the mesh as float32; this process reads the parts of its own devices only."""

    def part(index: Any) -> np.ndarray:
        values = np.array(array[index], np.float32)  # a copy: JAX must not go on using the mapped file
        if not all_finite(values):
            raise DataError(f"{name} holds numbers that are not finite")
        return values

    return jax.make_array_from_callback(array.shape, sharding, part)
