"""Checkpoints that do not fit the model or the run that is to resume from them."""

import jax
import jax.numpy as jnp
import pytest

from harvest_jax.errors import CheckpointError
from tests.helpers.checkpoints import (
    abstract_like,
    make_batches,
    make_state,
    open_checkpointer,
    restore,
    save_steps,
    target,
)


def changed_target(change):
    state = target(make_state())
    params = dict(state.params)
    change(params)
    return state.replace(params=params)


MISFITS = {
    "shape": (
        lambda params: params.update(half=abstract_like(params["half"], shape=(8,))),
        r"params/half is bfloat16\[4\] in the checkpoint, bfloat16\[8\] in the model",
    ),
    "dtype": (
        lambda params: params.update(half=abstract_like(params["half"], dtype=jnp.float32)),
        r"params/half is bfloat16\[4\] in the checkpoint, float32\[4\] in the model",
    ),
    "missing": (lambda params: params.update(new=params["half"]), "params/new is missing in the checkpoint"),
    "extra": (lambda params: params.pop("half"), "params/half is in the checkpoint alone"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_other_shapes_dtypes_or_names_are_refused_by_name(tmp_path, misfit):
    save_steps(tmp_path, 1)
    change, message = MISFITS[misfit]
    with open_checkpointer(tmp_path) as checkpointer, pytest.raises(CheckpointError, match=message):
        checkpointer.restore(changed_target(change), {}, make_batches())
    assert restore(tmp_path) == 1  # and the step is still there


def test_a_target_without_shardings_is_refused(tmp_path):
    save_steps(tmp_path, 1)
    bare = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), make_state())
    with open_checkpointer(tmp_path) as checkpointer, pytest.raises(ValueError, match="sharding"):
        checkpointer.restore(bare, {}, make_batches())


OTHER = {"seed": 1, "model": {"size": "B/16", "frames": (1, 2)}, "data_digest": "abc", "extra": True}
SAME_MODEL = {"seed": 1, "model": {"size": "demo", "frames": (1, 2)}, "data_digest": "abc"}


def test_the_workdir_of_another_run_is_refused_naming_the_fields(tmp_path):
    save_steps(tmp_path, 1)
    with pytest.raises(CheckpointError) as caught:
        open_checkpointer(tmp_path, identity=OTHER)
    message = str(caught.value)
    assert "model.size was 'demo' and is 'B/16' now" in message
    assert "seed was 0 and is 1 now" in message
    assert "extra was 'absent' and is True now" in message
    assert "frames" not in message
    assert "data_digest" not in message
    assert restore(tmp_path) == 1  # the refused one has unlocked the workdir


def test_the_refusal_says_how_to_train_on(tmp_path):
    save_steps(tmp_path, 1)
    with pytest.raises(CheckpointError, match=rf"begin another run from its state: --fork {tmp_path} --workdir NEW"):
        open_checkpointer(tmp_path, identity=SAME_MODEL)
    with pytest.raises(CheckpointError, match=rf"init_from=D, D from `harvest weights import {tmp_path} --out D`"):
        open_checkpointer(tmp_path, identity=OTHER)
    (tmp_path / "export").mkdir()
    with pytest.raises(CheckpointError, match=rf"another --workdir with --config.model.init_from={tmp_path}/export"):
        open_checkpointer(tmp_path, identity=OTHER)
