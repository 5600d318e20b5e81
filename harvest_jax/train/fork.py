"""A new run from a state of another run: `harvest train --fork`.

The number of the step goes on, and with it all that depends on it alone: the learning rate (by the new schedule), the
batch (by the new seed, shards and batch size) and every random draw. So a fork with the config of its origin takes the
same steps as the origin, bit for bit.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from harvest_jax.checkpoint import consensus, digests
from harvest_jax.checkpoint.checkpointer import Checkpointer
from harvest_jax.checkpoint.items import Spec, abstract, check_spec, from_items, spec, to_items
from harvest_jax.checkpoint.orbax_files import load_items, load_record
from harvest_jax.checkpoint.run_identity import OF_THE_MODEL, differences, in_words, same_processes, shared_position
from harvest_jax.checkpoint.tree_digest import tree_digest
from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.config.run import RunConfig
from harvest_jax.errors import ConfigError
from harvest_jax.input.batches import Batches
from harvest_jax.train.freeze import Tree, merge, partition
from harvest_jax.train.program import TrainProgram
from harvest_jax.train.step import Step, TrainState
from harvest_jax.weights.workdir_model import checkpoint_of, newest_good, of_item, verified, verified_frozen


@dataclasses.dataclass(frozen=True)
class Fork:
    """What a command asks for.

    Attributes:
      path: WORKDIR (its newest good checkpoint), WORKDIR@STEP, WORKDIR@best or WORKDIR/checkpoints/STEP.
      fresh_optimizer: the optimizer's moments begin anew instead of being taken over.
    """

    path: str
    fresh_optimizer: bool = False

    def found(self) -> tuple[Workdir, int | None]:
        """The training folder, and the step if the path says which.

        Raises:
          ConfigError: the path names no checkpoint.
          CheckpointError: the folder has no such checkpoint, or the disk does not answer.
        """
        found = checkpoint_of(self.path)
        if found is None:
            raise ConfigError(
                f"--fork {self.path} names no checkpoint of a training: give WORKDIR, WORKDIR@STEP or WORKDIR@best (a "
                "model folder has weights alone: begin from one with --config.model.init_from)"
            )
        return found

    def as_given(self) -> dict[str, str]:
        """What was asked for, as JSON, for the checkpoints of the new run."""
        return {"given": str(Path(self.path).absolute()), "optimizer": "fresh" if self.fresh_optimizer else "kept"}


@dataclasses.dataclass(frozen=True)
class Origin:
    """A checkpoint of another run, whose files agree with their digests."""

    workdir: Workdir
    step: int
    identity: dict[str, Any]  # of its run
    digest: str  # of its manifest
    frozen: Spec  # path -> [dtype, shape] of the frozen parameters

    def __str__(self) -> str:
        return f"{self.workdir.root}@{self.step}"


def find_origin(fork: Fork) -> Origin:
    """The checkpoint that a new run begins from; a collective.

    Raises:
      ConfigError: the path names no checkpoint.
      CheckpointError: there is none, it is damaged, or it cannot be read.
    """
    workdir, given = fork.found()

    def verify() -> list[Any]:
        step, manifest = newest_good(workdir) if given is None else (given, verified(workdir, given))
        frozen: Spec = {}
        if manifest["frozen_digest"] != tree_digest({}):
            frozen = of_item(verified_frozen(workdir, manifest["frozen_digest"])["arrays"], "params")
        return [step, manifest["run_identity"], digests.manifest_digest(manifest), frozen]

    return Origin(Workdir(workdir.root.absolute()), *consensus.on_primary(verify))


def check_fork(origin: Origin, run: RunConfig, identity: dict[str, Any]) -> None:
    """Whether a run can begin from a checkpoint.

    Args:
      origin: the checkpoint.
      run, identity: of the new run.

    Raises:
      ConfigError: its model is another, or no step is left.
    """
    changed = differences(origin.identity, identity)
    of_model = {name: values for name, values in changed.items() if name in OF_THE_MODEL}
    if of_model:
        raise ConfigError(
            f"a fork goes on with the model of {origin}, but {in_words(of_model)}: give the old values, or begin a new "
            "run from its weights with --config.model.init_from"
        )
    if origin.step >= run.train.steps:
        raise ConfigError(
            f"{origin} has taken {origin.step} steps, and train.steps={run.train.steps} counts them too: give a larger "
            "train.steps, or an earlier checkpoint"
        )


def check_same_fork(fork: Fork, forked_from: dict[str, Any] | None, workdir: Path) -> None:
    """Whether the run that a workdir holds began as the command says.

    Raises:
      ConfigError: it did not.
    """
    began = {name: (forked_from or {}).get(name) for name in fork.as_given()}
    if began != fork.as_given():
        how = f"from {began['given']} (optimizer {began['optimizer']})" if forked_from else "at step 0"
        raise ConfigError(
            f"{workdir} holds a run that began {how}: leave --fork out to go on with it, or choose another --workdir"
        )


def begin_fork(
    program: TrainProgram,
    fork: Fork,
    origin: Origin,
    identity: dict[str, Any],
    checkpointer: Checkpointer,
    batches: Batches,
) -> tuple[TrainState, Tree]:
    """State and frozen parameters of the new run, saved in its own workdir, which needs no other from then on.

    Args:
      program, identity, checkpointer: of the new run.
      fork, origin: what it begins from; checked by `check_fork`.
      batches: set to the batch of the origin's step.

    Raises:
      ConfigError: other parameters train than before, so that the optimizer's state does not fit.
      CheckpointError: names, shapes or dtypes are others, or the disk refuses.
    """
    state, frozen = _load(program, origin, fork.fresh_optimizer)
    changed = differences(origin.identity, identity)
    # Damaged records are known by their numbers, which mean others in other shards.
    position = batches.get_state() if "data_digest" in changed else shared_position(origin.workdir.step(origin.step))
    batches.set_state(position | {"next_batch": origin.step})
    checkpointer.forked_from = fork.as_given() | {
        "workdir": str(origin.workdir.root),
        "step": origin.step,
        "digest": origin.digest,
        "changed": changed,
    }
    checkpointer.save_frozen(frozen)
    checkpointer.save(origin.step, state, batches)
    return state, frozen


def in_a_line(forked_from: dict[str, Any]) -> str:
    """What a run began from, and what is not as it was there."""
    fresh = forked_from["optimizer"] == "fresh"
    return (
        f"a fork of {forked_from['workdir']}@{forked_from['step']}: parameters kept, "
        f"optimizer {'fresh (its moments are zero)' if fresh else 'kept'}; "
        f"{in_words(forked_from['changed']) or 'the same config'}"
    )


def _load(program: TrainProgram, origin: Origin, fresh_optimizer: bool) -> tuple[TrainState, Tree]:
    """State and frozen parameters in the layout of the new run; each process reads what its own devices hold."""
    folder = origin.workdir.step(origin.step)
    record = load_record(folder)
    same_processes(record["topology"])  # warns if not
    trained = of_item(record["arrays"], "params")
    wanted = traverse_util.flatten_dict(merge(program.state.params, program.frozen), sep="/")
    check_spec(trained | origin.frozen, spec(wanted), folder)

    def shaped(paths: Spec) -> Tree:
        return abstract(traverse_util.unflatten_dict({path: wanted[path] for path in paths}, sep="/"))

    items = {"params": shaped(trained)}
    if not fresh_optimizer:
        if trained.keys() != spec(program.state.params).keys():
            raise ConfigError(
                f"train.lr_multipliers trains other parameters than {origin} did, so that the optimizer's state does "
                "not fit: give --fresh_optimizer"
            )
        others = {name: tree for name, tree in to_items(program.state).items() if name != "params"}
        stored = {path: entry for path, entry in record["arrays"].items() if path.partition("/")[0] != "params"}
        check_spec(stored, spec(others), folder)
        items |= {name: abstract(tree) for name, tree in others.items()}
    loaded = load_items(folder, items)
    frozen = load_items(origin.workdir.frozen, {"params": shaped(origin.frozen)})["params"] if origin.frozen else {}
    if not fresh_optimizer:
        return from_items(program.state, loaded), frozen
    params, frozen = partition(merge(loaded["params"], frozen), program.run.train.lr_multipliers)
    begin = jax.jit(_begin_at, static_argnums=0, donate_argnums=1, out_shardings=program.state_shardings)
    return begin(program.step(), params, jnp.int32(origin.step)), frozen


def _begin_at(step: Step, params: Tree, number: Any) -> TrainState:
    """A state with fresh moments whose learning rate is that of the step with a number, int32 []."""
    state = step.init_state(params)
    counts = lambda part: isinstance(part, optax.ScaleByScheduleState)  # noqa: E731
    opt_state = jax.tree.map(
        lambda part: part._replace(count=number) if counts(part) else part, state.opt_state, is_leaf=counts
    )
    return dataclasses.replace(state, step=number, opt_state=opt_state)
