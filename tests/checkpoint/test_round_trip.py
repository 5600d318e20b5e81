"""What is restored is what was saved, bit for bit; which steps are kept."""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from harvest_jax.checkpoint import digests, run_identity
from harvest_jax.errors import CheckpointError
from tests.helpers.checkpoints import (
    assert_same,
    finished,
    make_batches,
    make_mesh,
    make_state,
    open_checkpointer,
    restore,
    save_steps,
    step_folder,
    target,
)


def test_restored_state_and_data_are_those_saved_bit_for_bit(tmp_path):
    save_steps(tmp_path, 1, 2, 3)
    assert restore(tmp_path) == 3


def test_a_mapping_without_data_or_optimizer_state_goes_round_too(tmp_path):
    state = {"params": make_state(5).params, "opt_state": (), "step": make_state(5).step}
    with open_checkpointer(tmp_path) as checkpointer:
        checkpointer.save_frozen({})
        checkpointer.save(5, state, None)
        checkpointer.wait()
        restored, frozen = checkpointer.restore(target(state), {}, None)
    assert_same(restored, state)
    assert frozen == {}


def test_nothing_to_restore_in_a_new_workdir(tmp_path):
    batches = make_batches()
    fresh = batches.get_state()
    with open_checkpointer(tmp_path / "new" / "run") as checkpointer:
        assert checkpointer.restore(target(make_state()), {}, batches) == (None, None)
    assert batches.get_state() == fresh


def test_a_step_is_saved_once(tmp_path):
    with open_checkpointer(tmp_path) as checkpointer:
        checkpointer.save_frozen({})
        checkpointer.save(2, make_state(2), None)
        checkpointer.save(2, make_state(9), None)
    with open_checkpointer(tmp_path) as checkpointer:  # also by a start that did not restore
        checkpointer.save(2, make_state(9), None)
        state, _ = checkpointer.restore(target(make_state()), {}, None)
    assert_same(state, make_state(2))


def test_keeps_the_newest_steps_only(tmp_path):
    save_steps(tmp_path, 1, 2, 3, 4, keep=2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["3", "4"]
    assert restore(tmp_path, keep=2) == 4


def test_multiples_of_a_number_of_steps_are_kept_for_good(tmp_path):
    save_steps(tmp_path, 1, 2, 3, 4, 5, 6, keep=1, keep_every=2)
    assert finished(tmp_path) == [2, 4, 6]
    save_steps(tmp_path, 7, keep=1, keep_every=0)  # it was changed
    assert finished(tmp_path) == [7]


def test_the_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    sharding = NamedSharding(make_mesh(), PartitionSpec("data"))
    increment = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    params = {f"{i}": jax.device_put(np.zeros((1024, 512), np.float32), sharding) for i in range(4)}
    with open_checkpointer(tmp_path) as checkpointer:
        checkpointer.save_frozen({})
        checkpointer.save(1, {"params": params}, None)
        saved_target = target(params)
        for _ in range(5):
            params = increment(params)
        jax.block_until_ready(params)
        checkpointer.wait()
        state, _ = checkpointer.restore({"params": saved_target}, {}, None)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(state))


def as_saved_by(folder, **processes):
    """Change a step's record of the processes and devices that saved it, digests included."""
    path = folder / "meta" / "data.json"
    record = json.loads(path.read_text())
    record["topology"] |= processes
    path.write_text(json.dumps(record))
    manifest = digests.read_digests(folder)
    (folder / "MANIFEST.json").unlink()
    digests.write_digests(folder, {name: value for name, value in manifest.items() if name not in ("format", "files")})


def test_other_devices_restore_the_same_values_with_a_warning(tmp_path, caplog):
    save_steps(tmp_path, 1)
    as_saved_by(step_folder(tmp_path, 1), devices=4)
    goal = make_state(1, devices=2)
    with open_checkpointer(tmp_path) as checkpointer:
        state, _ = checkpointer.restore(target(goal), {}, make_batches())
    assert_same(state, goal)
    assert "processes or devices changed" in caplog.text


def test_the_position_in_the_data_survives_another_number_of_processes(tmp_path, caplog):
    save_steps(tmp_path, 1)
    data = step_folder(tmp_path, 1) / "data"
    (data / "process_0-of-1.json").rename(data / "process_0-of-2.json")
    (data / "process_1-of-2.json").write_bytes((data / "process_0-of-2.json").read_bytes())
    as_saved_by(step_folder(tmp_path, 1), processes=2)
    assert restore(tmp_path) == 1
    assert "processes or devices changed" in caplog.text


def test_positions_that_differ_between_processes_are_refused(tmp_path):
    (tmp_path / "data").mkdir()
    for process, state in enumerate(({"next": 3}, {"next": 3}, {"next": 4})):
        (tmp_path / "data" / f"process_{process}-of-3.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match="resume with the same number"):
        run_identity.shared_position(tmp_path)
    (tmp_path / "data" / "process_2-of-3.json").write_text('{"next": 3}')
    assert run_identity.shared_position(tmp_path) == {"next": 3}


def test_every_file_is_synced_to_the_disk_before_the_manifest(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    save_steps(tmp_path, 1)
    folder = step_folder(tmp_path, 1)
    listed = {str(folder / name) for name in digests.read_digests(folder)["files"]}
    manifest = next(number for number, name in enumerate(synced) if Path(name).name.startswith("MANIFEST.json"))
    assert len(listed) > 10
    assert listed <= set(synced[:manifest])
    assert finished(tmp_path) == [1]
