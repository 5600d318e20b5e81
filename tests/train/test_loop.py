"""The loop's own decisions: which program a step runs, and how long the captions are that it gets."""

from unittest.mock import create_autospec

import jax
import numpy as np

from harvest_jax.checkpoint.checkpointer import Checkpointer
from harvest_jax.input.tokenizer import Tokenizer
from harvest_jax.train import loop
from harvest_jax.train.mesh import make_mesh
from harvest_jax.train.metrics import MetricWriter
from harvest_jax.train.preemption import StopSignal
from harvest_jax.train.step import TrainState
from tests.train.test_train_step import make_batch, make_run


def epochs(clips):
    return {"epoch": clips / 16}


def test_the_last_steps_run_the_program_of_all_patches():
    run = make_run(train__steps=5, train__unmasked_steps=2)
    mesh = make_mesh(run.mesh, run.train.batch_size, jax.devices()[:1])
    seen = []

    def compiled(all_patches):
        def step(state, frozen, batch):
            seen.append((all_patches, batch["ids"].shape))
            return state.replace(step=state.step + 1), {"loss": np.float32(0)}

        return step

    others = [create_autospec(kind, instance=True) for kind in (Checkpointer, MetricWriter, StopSignal)]
    others[2].requested.return_value = False
    batch = make_batch() | {"index": np.arange(16)}
    batch["ids"] = np.pad(batch["ids"], ((0, 0), (0, 8)))
    for start, expected in ((0, [False] * 3 + [True] * 2), (3, [True] * 2)):
        seen.clear()
        state = TrainState(step=start, params={}, opt_state=(), first_bad_step=-1)
        loop.run_steps(run, compiled, state, {}, iter([batch] * 5), epochs, mesh, *others)
        assert [all_patches for all_patches, _ in seen] == expected
        assert {shape for _, shape in seen} == {(16, 8)}  # of 16; the end token is the seventh


class OnDevice:
    """A measurement that is not known yet; asking for it waits for the device."""

    def __init__(self, step):
        self.step = step

    def __float__(self):
        asked.append(self.step)
        return 0.0

    def block_until_ready(self):
        waited_for.append((self.step, started[-1]))
        return self


asked, waited_for, started = [], [], []


def test_the_host_asks_the_device_for_numbers_only_to_log():
    run = make_run(train__steps=9, train__log_every=4, train__save_every=100)
    mesh = make_mesh(run.mesh, run.train.batch_size, jax.devices()[:1])
    for seen in (asked, waited_for, started):
        seen.clear()

    def compiled(all_patches):
        def step(state, frozen, batch):
            started.append(state.step + 1)
            return state.replace(step=state.step + 1), {"loss": OnDevice(state.step + 1)}

        return step

    others = [create_autospec(kind, instance=True) for kind in (Checkpointer, MetricWriter, StopSignal)]
    others[2].requested.return_value = False
    state = TrainState(step=0, params={}, opt_state=(), first_bad_step=-1)
    batch = make_batch() | {"index": np.arange(16)}
    loop.run_steps(run, compiled, state, {}, iter([batch] * 9), epochs, mesh, *others)
    assert asked == [1, 4, 8, 9]  # the first, every fourth, the last
    assert waited_for == [(step, step + 2) for step in range(1, 8)]  # never more than two steps ahead


def test_padding_is_cut_at_a_multiple_of_eight():
    ids = Tokenizer(4096)(["a dog", "a cat sits on a mat and looks at a bird", ""], 32)
    ends = ids.argmax(axis=1)
    assert ends.max() in range(8, 16)
    np.testing.assert_array_equal(loop.without_padding(ids), ids[:, :16])
    assert loop.without_padding(ids[:1]).shape == (1, 8)
    full = Tokenizer(4096)(["word " * 50], 30)
    np.testing.assert_array_equal(loop.without_padding(full), full)  # never longer than it is
