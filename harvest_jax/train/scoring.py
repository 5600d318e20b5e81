"""Scores while a run trains: when they are due, and where they go. Who computes them is given from above.

A step that is scored is saved first, then evaluated, and its scores are written beside its checkpoint, then to the log.
So a run that is killed at any time goes on where it was: what lacks its scores gets them, what has them is not
evaluated again. Evaluating reads a copy of the parameters alone: random numbers, the order of the data and the state
stay as they are.
"""

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax

from harvest_jax.checkpoint import consensus, scores
from harvest_jax.checkpoint.checkpointer import Checkpointer
from harvest_jax.checkpoint.scores import StepScores
from harvest_jax.config.run import RunConfig
from harvest_jax.errors import Preempted
from harvest_jax.model.config import HarvestConfig
from harvest_jax.model.harvest import Params
from harvest_jax.train import mesh as meshes
from harvest_jax.train.freeze import Tree, merge
from harvest_jax.train.metrics import SCORES, MetricWriter
from harvest_jax.train.preemption import StopSignal
from harvest_jax.train.program import TrainProgram
from harvest_jax.train.step import TrainState
from harvest_jax.weights.workdir_model import NOT_IN_A_MODEL

POLL_SECONDS = 1.0  # between two looks of waiting processes


class Interrupted(Exception):
    """An evaluation is given up because the run is to stop."""


@runtime_checkable
class Scorer(Protocol):
    """What evaluates a model; process 0 alone calls it."""

    def __call__(self, config: HarvestConfig, params: Params, step: int, pulse: Callable[[], None]) -> StepScores:
        """The scores of a model.

        Args:
          config: the model's description.
          params: float32 arrays on the host.
          step: how far the model is trained; for its name.
          pulse: to be called after every clip; its exception ends the evaluation.
        """


@dataclasses.dataclass(frozen=True)
class Scoring:
    """The evaluations of one run."""

    program: TrainProgram
    frozen: Tree
    clips: int  # of all shards
    scorer: Scorer | None  # on process 0 there is one
    checkpointer: Checkpointer
    writer: MetricWriter
    stop: StopSignal
    progress: Callable[[], None] = lambda: None  # is called, from any thread, whenever an evaluation comes further

    def due(self, step: int) -> bool:
        """Whether the state after `step` steps is scored: before the first, at the end, and as `config.eval` says."""
        train, every, unit = self.program.run.train, self.program.run.eval.every, self.program.run.eval.unit
        if step in (0, train.steps):
            return True
        if unit == "steps":
            return step % every == 0
        # The first step at which as many clips were seen as so many passes have.
        passes, earlier = (steps * train.batch_size // (every * self.clips) for steps in (step, step - 1))
        return passes > earlier

    def at_start(self, step: int, state: TrainState) -> None:
        """Score the state that a run begins or goes on with, if that is due or its config evaluates otherwise now.

        So a config that cannot be evaluated is found before the first step.
        """
        known, changed = consensus.on_primary(lambda: self._known(step))
        if self.due(step) or changed:
            self.score(step, state, known)

    def score(self, step: int, state: TrainState, known: bool = False) -> None:
        """Evaluate a state and keep its scores; its checkpoint may still be being written.

        Args:
          step: of the state.
          state: is only read.
          known: the scores lie beside the checkpoint already: only the log may lack them.

        Raises:
          Preempted: a stop was asked for; the state is saved.
        """
        found = None
        if not known:
            found = self._evaluate(model_parameters(self.program, state, self.frozen), step)
            if step:  # nothing is saved before the first step
                self._keep(step, found)
        if jax.process_index() == 0:
            found = found or scores.read_scores(self.checkpointer.workdir, step)
            if found is not None:
                self._report(step, found)

    def _known(self, step: int) -> tuple[bool, bool]:
        """Whether the step's checkpoint has scores by the rule of now, and whether the rule is another than before."""
        workdir = self.checkpointer.workdir
        manifest = workdir.manifest(step)
        changed = manifest is not None and manifest.get("scored_by") != scored_by(self.program.run)
        return scores.read_scores(workdir, step) is not None and not changed, changed

    def _keep(self, step: int, found: StepScores | None) -> None:
        """Write the scores beside the step's checkpoint, once that is complete."""
        self.checkpointer.wait()

        def write() -> None:
            if found is not None:
                scores.write_scores(self.checkpointer.workdir, step, found)

        consensus.on_primary(write)

    def _evaluate(self, params: Params, step: int) -> StepScores | None:
        """The scores, on process 0; None on the others, which wait."""

        def run(pulse: Callable[[], None]) -> StepScores:
            if self.scorer is None:
                raise RuntimeError("process 0 evaluates, and it was given nothing that does")
            return self.scorer(self.program.config, params, step, pulse)

        try:
            return run(self._pulse) if jax.process_count() == 1 else self._evaluate_together(run)
        except Interrupted:
            stopped = f"stopped by {self.stop.name} in an evaluation, saved at step {step}"
            raise Preempted(f"{stopped}: run the same command again to go on") from None

    def _pulse(self) -> None:
        if self.stop.received:
            raise Interrupted
        self.progress()

    def _evaluate_together(self, run: Callable[[Callable[[], None]], StepScores]) -> StepScores | None:
        """With several processes: a thread of process 0 evaluates, and all meet at short intervals until it has ended.

        One long wait in a collective could exceed its limit of time, and would not see a signal.
        """
        work = _Work(run, self.progress) if jax.process_index() == 0 else None
        while True:
            if consensus.any_process(self.stop.received):
                if work is not None:
                    work.give_up()
                raise Interrupted
            if consensus.any_process(work is not None and not work.thread.is_alive()):
                return work.result() if work is not None else None
            if work is not None:
                work.thread.join(POLL_SECONDS)
            else:
                self.progress()  # process 0 has answered
                time.sleep(POLL_SECONDS)

    def _report(self, step: int, found: StepScores) -> None:
        """The scores for the log, and a line for the terminal."""
        self.writer.write_scores(step, {f"{SCORES}{name}": value for name, value in found.values.items()})
        if found.metric not in found.values:
            print(f"step {step}: evaluated", flush=True)
            return
        told = f"step {step}: {found.metric} {found.values[found.metric]:.2f}"
        best = scores.best_step(self.checkpointer.workdir)
        if best is not None and step:
            told += " (the best so far)" if best[0] == step else f" (best: {best[1]:.2f} at step {best[0]})"
        print(told, flush=True)


class _Work:
    """A function that runs in a thread and can be given up."""

    def __init__(self, run: Callable[[Callable[[], None]], StepScores], progress: Callable[[], None]) -> None:
        self._given_up = threading.Event()
        self._progress = progress
        self._found: StepScores | None = None
        self._error: BaseException | None = None
        self._run = run
        self.thread = threading.Thread(target=self._work, name="evaluation", daemon=True)
        self.thread.start()

    def give_up(self) -> None:
        """End it at its next pulse, and wait for that."""
        self._given_up.set()
        self.thread.join()

    def result(self) -> StepScores | None:
        """What the function returned, after its end; what it raised, this raises."""
        if self._error is not None:
            raise self._error
        return self._found

    def _work(self) -> None:
        try:
            self._found = self._run(self._pulse)
        except BaseException as error:  # raised again by `result`: an exception of a thread reaches no caller
            self._error = error

    def _pulse(self) -> None:
        if self._given_up.is_set():
            raise Interrupted
        self._progress()


def model_parameters(program: TrainProgram, state: TrainState, frozen: Tree) -> Params:
    """The parameters of the model that a run has made so far: float32 arrays on the host, of every process."""
    params: Params = meshes.fetch(merge(state.params, frozen), program.mesh)
    if not program.config.logit_bias:
        for name in NOT_IN_A_MODEL:
            params.pop(name, None)
    return params


def scored_by(run: RunConfig) -> dict[str, Any] | None:
    """What a checkpoint notes of the evaluations of its run, so that a change is seen; None: there are none."""
    if not run.eval.every:
        return None
    return {"config": list(run.eval.configs), "metric": run.eval.metric}
