"""The faults of the soak's negative controls do what they say: each is in the package as it is now."""

import jax
import numpy as np
import pytest

from benchmarks.soak_breaks import FAULTS
from harvest_jax.checkpoint import checkpointer
from harvest_jax.checkpoint.checkpointer import Checkpointer
from harvest_jax.checkpoint.step_folders import UNFINISHED, StepFolders
from harvest_jax.errors import CheckpointError
from harvest_jax.train import metrics
from tests.helpers.checkpoints import make_batches, make_state, open_checkpointer, save_steps, target

CHANGED = [
    *((Checkpointer, name) for name in ("restore", "save")),
    *((StepFolders, name) for name in ("_tidy", "newest_good")),
    (checkpointer, "load_items"),
    (metrics, "cut"),
]


@pytest.fixture
def put_in(monkeypatch):
    """Faults that are gone after the test."""
    for owner, name in CHANGED:
        monkeypatch.setattr(owner, name, getattr(owner, name))
    return lambda name: FAULTS[name]()


def restored(workdir):
    """The restored state, and how many batches lie before the next one."""
    batches, fresh = make_batches(), make_batches()
    with open_checkpointer(workdir) as opened:
        state, _ = opened.restore(target(make_state()), {}, batches)
    following = next(batches)
    (position,) = [number for number in range(5) if np.array_equal(next(fresh), following)]
    return state, position


def bits_changed(one, other):
    """How many bits differ between two trees of arrays."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    words = [(np.frombuffer(np.asarray(leaf).tobytes(), np.uint8) for leaf in pair) for pair in pairs]
    return sum(int(np.bitwise_count(left ^ right).sum()) for left, right in words)


def test_without_a_fault_all_is_as_saved(tmp_path, put_in):
    put_in("nothing")
    save_steps(tmp_path, 1, 2)
    state, position = restored(tmp_path)
    assert (bits_changed(state, make_state(2)), position) == (0, 2)


def test_the_data_begins_anew(tmp_path, put_in):
    save_steps(tmp_path, 2)
    put_in("data_position")
    state, position = restored(tmp_path)
    assert (bits_changed(state, make_state(2)), position) == (0, 0)


def test_the_optimizer_knows_nothing(tmp_path, put_in):
    save_steps(tmp_path, 2)
    put_in("optimizer")
    state, _ = restored(tmp_path)
    assert bits_changed(state.params, make_state(2).params) == 0
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(state.opt_state))


def test_one_bit_is_one_bit(tmp_path, put_in):
    save_steps(tmp_path, 2)
    put_in("one_bit")
    state, _ = restored(tmp_path)
    assert bits_changed(state.params, make_state(2).params) == bits_changed(state, make_state(2)) == 1


def test_measurements_are_not_cut(tmp_path, put_in):
    put_in("metrics")
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 9}\n')
    metrics.JsonLines(path, 3).close()
    assert path.read_text() == '{"step": 9}\n'


def test_a_checkpoint_has_the_parameters_of_the_one_before(tmp_path, put_in):
    put_in("stale_state")
    save_steps(tmp_path, 1, 2)
    state, position = restored(tmp_path)
    assert (int(state.step), position) == (2, 2)
    assert bits_changed(state.params, make_state(1).params) == 0


def test_an_unfinished_step_is_taken(tmp_path, put_in):
    save_steps(tmp_path, 1)
    (tmp_path / "checkpoints" / f"2{UNFINISHED}").mkdir()
    put_in("unfinished")
    with pytest.raises(CheckpointError, match="checkpoints/2 "):
        restored(tmp_path)
