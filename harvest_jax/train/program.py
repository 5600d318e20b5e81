"""The training step of a run as a program: its inputs' shapes, where they lie on the mesh, and the compiled function.

`harvest train` runs this program, `harvest plan` compiles it for hardware that is not there, and `harvest bench step`
times it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from harvest_jax.config.run import RunConfig
from harvest_jax.errors import ConfigError
from harvest_jax.input.patches import num_kept
from harvest_jax.model.config import HarvestConfig
from harvest_jax.model.harvest import Harvest
from harvest_jax.train import mesh as meshes
from harvest_jax.train.freeze import Tree, partition
from harvest_jax.train.hardware import DTYPES, attention, unroll_layers
from harvest_jax.train.model_of_run import check_text_length, model_config, parameters_at_random
from harvest_jax.train.objectives import inputs_of
from harvest_jax.train.step import Step, TrainState


@dataclasses.dataclass(frozen=True)
class TrainProgram:
    """A run's step on a mesh. Trees are of ShapeDtypeStructs with their shardings; no numbers are held."""

    run: RunConfig
    config: HarvestConfig
    model: Harvest
    mesh: Mesh
    state: TrainState
    frozen: Tree

    @property
    def state_shardings(self) -> TrainState:
        """Where each array of the state lies."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.state)

    def step(self, all_patches: bool = False) -> Step:
        """The pure function of one step: of the stage that drops patches, or of the last one with all patches."""
        train, mesh = self.run.train, self.mesh
        whole = lambda tree: jax.lax.with_sharding_constraint(tree, meshes.replicated(mesh))  # noqa: E731
        return Step(
            self.model,
            self.run,
            pieces=train.unmasked_accumulate if all_patches else train.accumulate,
            gather=whole,
            scatter=lambda tree: jax.lax.with_sharding_constraint(tree, meshes.state_shardings(tree, mesh)),
        )

    def jitted(self, all_patches: bool = False) -> Any:
        """jit of (state, frozen, batch) -> (state, metrics); the state is donated."""
        return jax.jit(self.step(all_patches), donate_argnums=0, out_shardings=(self.state_shardings, None))

    def batch(self, all_patches: bool = False) -> dict[str, Any]:
        """The global batch as ShapeDtypeStructs."""
        sharding = NamedSharding(self.mesh, meshes.BATCH)
        shapes = batch_shapes(self.run, self.config, all_patches)
        return {name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for name, (shape, dtype) in shapes.items()}


def train_program(
    run: RunConfig, devices: Sequence[Any] | None = None, config: HarvestConfig | None = None
) -> TrainProgram:
    """The program of a run.

    Args:
      run: the checked config.
      devices: those of an abstract topology, too; None: all devices of this job.
      config: the model's description if it is known already (that of a workdir); None: `model_config(run)`.

    Raises:
      ConfigError: devices or batch cannot be divided as asked, or `model.init_from` holds another model.
      DataError: the folder `model.init_from` cannot be used.
    """
    mesh = meshes.make_mesh(run.mesh, run.train.batch_size, devices)
    for name in ("accumulate", "unmasked_accumulate"):
        pieces = getattr(run.train, name)
        if run.train.batch_size // pieces % mesh.size:
            raise ConfigError(
                f"train.{name}={pieces} makes pieces of {run.train.batch_size // pieces} clips, which cannot be "
                f"divided over {mesh.size} devices"
            )
    if config is None:
        config = model_config(run)
    check_text_length(run, config)
    kernels = attention(run.model.attention, run.model.dtype, mesh)
    model = Harvest(config, DTYPES[run.model.dtype], kernels, run.model.remat, unroll_layers(mesh))
    params = jax.eval_shape(lambda: parameters_at_random(run, model))
    trained, frozen = partition(params, run.train.lr_multipliers)
    state = jax.eval_shape(Step(model, run).init_state, trained)
    with_shardings = lambda tree: meshes.with_shardings(tree, meshes.state_shardings(tree, mesh))  # noqa: E731
    return TrainProgram(run, config, model, mesh, with_shardings(state), with_shardings(frozen))


def batch_shapes(
    run: RunConfig, config: HarvestConfig, all_patches: bool = False
) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and dtype of each array of a global batch."""
    video, size = config.video, run.train.batch_size
    keep = 1.0 if all_patches else run.model.keep_ratio
    kept = num_kept(video.num_frames, video.cells_per_frame, keep, run.model.drop_scope)
    return {
        "patches": ((size, kept, video.patch_dim), np.uint8),
        "positions": ((size, kept), np.int32),
        **{name: ((size, *shape), dtype) for name, (shape, dtype) in inputs_of(run).items()},
    }


def random_batch(run: RunConfig, config: HarvestConfig) -> dict[str, Any]:
    """Host arrays of `batch_shapes` with random contents: captions of all lengths, with masked words.

    Raises:
      ConfigError: the objective is another than that of post-pretraining.
    """
    if run.objective.name != "post_pretraining":
        raise ConfigError(f"objective.name={run.objective.name}: only post_pretraining is measured on random clips")
    shapes = batch_shapes(run, config)
    rng = np.random.default_rng(0)
    size, kept, _ = shapes["patches"][0]
    length, slots = shapes["ids"][0][1], shapes["slots"][0][1]
    total = config.video.num_frames * config.video.cells_per_frame
    ids = rng.integers(1, config.text.vocab_size - 2, (size, length)).astype(np.int32)
    ids[:, 0] = config.text.vocab_size - 2
    ends = rng.integers(min(1 + slots, length - 1), length, size)
    ids[np.arange(length) > ends[:, None]] = 0
    ids[np.arange(size), ends] = config.text.vocab_size - 1
    return {
        "patches": rng.integers(0, 256, shapes["patches"][0], dtype=np.uint8),
        "positions": np.sort(rng.random((size, total)).argsort(axis=1)[:, :kept], axis=1).astype(np.int32),
        "ids": ids,
        "slots": np.tile(np.arange(1, slots + 1, dtype=np.int32), (size, 1)),
        "slot_weights": np.ones((size, slots), np.float32),
    }
