"""The loop's own decisions: which program a step runs, how long its captions are, when the host waits and saves."""

import collections
import contextlib
import dataclasses
import functools
from typing import Any
from unittest.mock import create_autospec

import jax
import numpy as np
import pytest

from harvest_jax.checkpoint.checkpointer import Checkpointer
from harvest_jax.errors import NonFiniteError, Preempted
from harvest_jax.input.batches import Batches
from harvest_jax.input.damaged import DamagedRecords
from harvest_jax.input.tokenizer import Tokenizer
from harvest_jax.model.harvest import Harvest
from harvest_jax.train import loop
from harvest_jax.train.mesh import make_mesh
from harvest_jax.train.metrics import MetricWriter
from harvest_jax.train.preemption import StopSignal
from harvest_jax.train.program import TrainProgram
from harvest_jax.train.scoring import Scoring
from harvest_jax.train.step import TrainState
from harvest_jax.train.watchdog import Watchdog
from tests.helpers.small_model import TINY
from tests.helpers.train_runs import make_batch, make_run


@dataclasses.dataclass(frozen=True)
class Counting(TrainProgram):
    """A program whose steps count and note; nothing is computed."""

    events: Any = dataclasses.field(default_factory=list)
    bad_step: int = -1  # whose loss is not a number

    def jitted(self, all_patches=False):
        def step(state, frozen, batch):
            number = state.step + 1
            self.events.append(("step", number, all_patches, batch["ids"].shape))
            bad = state.step if number == self.bad_step else state.first_bad_step
            return state.replace(step=number, first_bad_step=bad), {"loss": OnDevice(number, self.events)}

        return step


@dataclasses.dataclass
class OnDevice:
    """A measurement that is not known yet; asking for it waits for the device."""

    step: int
    events: list

    def __float__(self):
        self.events.append(("asked", self.step))
        return 0.0

    def block_until_ready(self):
        started = sum(event[0] == "step" for event in self.events)
        self.events.append(("order", started, self.step))
        return self


@contextlib.contextmanager
def between(events, doing, step):
    events.append(("begin", (doing, step)))
    yield
    events.append(("end", (doing, step)))


def run_steps(start=0, bad_step=-1, stop_at=None, score_at=None, config=TINY, **changes):
    """Events of a run of `changes`, and its checkpointer; what it raises, it raises."""
    run = make_run(**changes)
    mesh = make_mesh(run.mesh, run.train.batch_size, jax.devices()[:1])
    state = TrainState(step=start, params={}, opt_state=(), first_bad_step=-1)
    program = Counting(run, config, Harvest(config), mesh, state, {}, bad_step=bad_step)
    batch = make_batch() | {"index": np.arange(16)}
    batch["ids"] = np.pad(batch["ids"], ((0, 0), (0, 8)))
    batches, checkpointer, writer, stop, watchdog = (
        create_autospec(kind, instance=True) for kind in (Batches, Checkpointer, MetricWriter, StopSignal, Watchdog)
    )
    batches.__next__.return_value = batch
    batches.damaged = create_autospec(DamagedRecords, instance=True)
    batches.report.return_value = {"epoch": 0.5}
    stop.requested.side_effect = lambda step: step == stop_at
    stop.name = "SIGTERM"
    checkpointer.save.side_effect = lambda step, state, data: program.events.append(("save", step))
    checkpointer.wait.side_effect = lambda: program.events.append(("wait", ""))
    watchdog.running.side_effect = lambda compiles: program.events.append(("compiles", compiles))
    watchdog.between.side_effect = functools.partial(between, program.events)
    try:
        scoring = None
        if score_at is not None:
            scoring = create_autospec(Scoring, instance=True)
            scoring.due.side_effect = lambda step: step in score_at
            scoring.at_start.side_effect = lambda step, state: program.events.append(("at_start", step))
            scoring.score.side_effect = lambda step, state: program.events.append(("score", (step, int(state.step))))
        loop.run_steps(program, state, {}, batches, checkpointer, writer, stop, watchdog, scoring)
    except (NonFiniteError, Preempted) as error:
        program.events.append((type(error).__name__, str(error)))
    events = collections.defaultdict(list, {"all": program.events})
    for kind, *what in program.events:
        events[kind].append(tuple(what) if len(what) > 1 else what[0])
    return events


@pytest.mark.parametrize(("start", "expected"), [(0, [False] * 3 + [True] * 2), (3, [True] * 2)])
def test_the_last_steps_run_the_program_of_all_patches(start, expected):
    steps = run_steps(start, train__steps=5, train__unmasked_steps=2)["step"]
    assert [all_patches for _, all_patches, _ in steps] == expected
    assert {shape for *_, shape in steps} == {(16, 8)}  # of 16; the end token is the seventh


def test_the_host_asks_the_device_for_numbers_only_to_log():
    run = run_steps(train__steps=9, train__log_every=4, train__save_every=100)
    assert run["asked"] == [1, 4, 8, 9]  # the first, every fourth, the last
    assert run["save"] == [9]


def test_the_host_is_never_more_than_two_steps_ahead():
    order = run_steps(train__steps=9, train__log_every=100, train__save_every=100)["order"]
    ahead = [started - waited for started, waited in order]
    assert max(ahead) == 2
    assert len(order) == 7


def test_it_saves_every_so_many_steps_and_at_the_end():
    assert run_steps(train__steps=7, train__save_every=3)["save"] == [3, 6, 7]


def test_what_is_scored_is_saved_first():
    run = run_steps(3, score_at=(4, 6), train__steps=6, train__save_every=100)
    assert (run["at_start"], run["save"], run["score"]) == ([3], [4, 6], [(4, 4), (6, 6)])
    order = [kind for kind, *_ in run["all"] if kind in ("save", "score", "step")]
    assert order == ["step", "save", "score", "step", "step", "save", "score"]


def test_a_stop_does_not_wait_for_an_evaluation():
    run = run_steps(score_at=(4,), train__steps=6, train__save_every=100, stop_at=4)
    assert (run["save"], run["score"], len(run["Preempted"])) == ([4], [], 1)


def test_a_stop_saves_and_is_reported():
    run = run_steps(train__steps=7, train__save_every=100, stop_at=4)
    assert run["save"] == [4]
    assert run["Preempted"] == ["stopped by SIGTERM, saved at step 4: run the same command again to go on"]
    assert run_steps(train__steps=7, train__save_every=100, stop_at=7)["save"] == [7]  # it is over anyway


def test_nothing_is_saved_after_a_loss_that_is_not_a_number():
    run = run_steps(train__steps=9, train__save_every=3, train__log_every=100, bad_step=4)
    assert run["save"] == [3]
    assert "of step 4 is not a number (seen at the batch of clips 0, 1, 2, 3 ...)" in run["NonFiniteError"][0]


def test_the_watchdog_knows_what_compiles_saves_and_evaluates():
    run = run_steps(score_at=(4,), train__steps=6, train__unmasked_steps=1, train__save_every=3)
    assert run["compiles"] == [True, False, False, False, False, True]
    of_saves = [event for event in run["all"] if event[0] in ("begin", "end", "save", "wait", "at_start", "score")]
    assert [kind for kind, *_ in of_saves] == [
        *("begin", "at_start", "end"),
        *("begin", "save", "end") * 2,
        *("begin", "score", "end"),
        *("begin", "save", "wait", "end"),  # nothing else waits for the last save
    ]
    assert run["begin"] == [("evaluating", 0), ("saving", 3), ("saving", 4), ("evaluating", 4), ("saving", 6)]


def test_captions_of_a_tower_that_reads_the_padding_are_not_cut():
    reads_all = dataclasses.replace(TINY, text=dataclasses.replace(TINY.text, causal=False))
    steps = run_steps(train__steps=2, config=reads_all)["step"]
    assert {shape for *_, shape in steps} == {(16, 16)}


def test_padding_is_cut_at_a_multiple_of_eight():
    ids = Tokenizer(4096)(["a dog", "a cat sits on a mat and looks at a bird", ""], 32)
    ends = ids.argmax(axis=1)
    assert ends.max() in range(8, 16)
    np.testing.assert_array_equal(loop.without_padding(ids), ids[:, :16])
    assert loop.without_padding(ids[:1]).shape == (1, 8)
    full = Tokenizer(4096)(["word " * 50], 30)
    np.testing.assert_array_equal(loop.without_padding(full), full)  # never longer than it is
