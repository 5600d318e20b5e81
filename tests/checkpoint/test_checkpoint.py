"""Checkpoints: exact round trips, and every way in which a save or a folder can be bad."""

import contextlib
import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import flax.struct
import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from harvest_jax.checkpoint import checkpointer as checkpoint_module
from harvest_jax.checkpoint import digests, run_identity
from harvest_jax.checkpoint.checkpointer import Checkpointer
from harvest_jax.checkpoint.workdir import StepFolders
from harvest_jax.errors import CheckpointError, Preempted

ROOT = Path(__file__).resolve().parents[2]
IDENTITY = {"seed": 0, "model": {"size": "demo", "frames": (1, 2)}, "data_digest": "abc"}


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Nothing here cuts the power, and a busy disk takes long; see the test of what is forced to it."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@flax.struct.dataclass
class State:
    """As the trainer's."""

    step: jax.Array
    params: dict
    opt_state: object


def make_mesh(count=4):
    count = min(count, jax.device_count())
    return jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])


@functools.cache
def make_state(seed=0, devices=4):
    mesh = make_mesh(devices)
    split, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    rng = np.random.default_rng(seed)
    params = {
        "video": {"kernel": jax.device_put(rng.normal(size=(8, 6)).astype(np.float32), split)},
        "half": jax.device_put(rng.normal(size=4).astype(jnp.bfloat16), whole),
        "logit_scale": jax.device_put(np.float32(rng.normal()), whole),
    }
    layout = jax.eval_shape(optax.chain(optax.identity(), optax.scale_by_adam()).init, params)  # one part empty
    opt_state = jax.tree.map(lambda x: jax.device_put(rng.normal(size=x.shape).astype(x.dtype), whole), layout)
    return State(step=jax.device_put(np.int32(seed), whole), params=params, opt_state=opt_state)


def target(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def make_batches():
    dataset = grain.MapDataset.range(50).seed(1).shuffle().repeat().batch(4)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)))


def open_checkpointer(workdir, save_every=1, keep=3, identity=IDENTITY):
    return Checkpointer(workdir, save_every, keep, identity)


def save_steps(workdir, *steps, **options):
    """One checkpoint for each step, the state of which is make_state(step) and the data position that many batches."""
    batches = make_batches()
    with open_checkpointer(workdir, **options) as checkpointer:
        for step in range(1, max(steps) + 1):
            next(batches)
            if step in steps:
                assert checkpointer.save(step, make_state(step), batches, {"clock": step / 2})


def restore(workdir, **options):
    """The restored step after checking that state, meta and data position are those of that step; None without one."""
    batches = make_batches()
    with open_checkpointer(workdir, **options) as checkpointer:
        restored = checkpointer.restore_latest_good(target(make_state()), batches)
    if restored is None:
        return None
    state, meta = restored
    step = meta["step"]
    assert meta == {"step": step, "clock": step / 2}
    assert_same(state, make_state(step))
    reference = make_batches()
    for _ in range(step):
        next(reference)
    np.testing.assert_array_equal(next(batches), next(reference))
    return step


def assert_same(actual, expected):
    """The same structure, bits and layout on the devices."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (x.dtype, x.shape, x.sharding) == (y.dtype, y.shape, y.sharding)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def flip(path, rng):
    data = bytearray(path.read_bytes())
    position = rng.randrange(len(data))
    data[position] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def finished(workdir):
    with contextlib.closing(StepFolders(workdir)) as folders:
        return folders.finished()


def step_folder(workdir, step):
    return workdir / "checkpoints" / str(step)


# Round trips


def test_restored_state_meta_and_data_are_those_saved_bit_for_bit(tmp_path):
    save_steps(tmp_path, 1, 2, 3)
    assert restore(tmp_path) == 3


def test_a_mapping_without_data_or_optimizer_state_goes_round_too(tmp_path):
    state = {"params": make_state(5).params, "opt_state": (), "step": make_state(5).step}
    with open_checkpointer(tmp_path) as checkpointer:
        checkpointer.save(5, state, None, {})
        checkpointer.wait()
        restored, meta = checkpointer.restore_latest_good(target(state), None)
    assert_same(restored, state)
    assert meta == {"step": 5}


def test_nothing_to_restore_in_a_new_workdir(tmp_path):
    with open_checkpointer(tmp_path / "new" / "run") as checkpointer:
        assert checkpointer.latest_step is None
        assert checkpointer.restore_latest_good(target(make_state()), make_batches()) is None


def test_other_devices_restore_the_same_values_with_a_warning(tmp_path, caplog, monkeypatch):
    saved_on = run_identity.topology() | {"devices": 4}
    monkeypatch.setattr(checkpoint_module, "topology", lambda: saved_on)
    save_steps(tmp_path, 1)
    goal = make_state(1, devices=2)
    with open_checkpointer(tmp_path) as checkpointer:
        state, _ = checkpointer.restore_latest_good(target(goal), make_batches())
    assert_same(state, goal)
    assert "topology changed" in caplog.text


def test_saves_when_due_or_forced_and_each_step_once(tmp_path):
    state = make_state()
    with open_checkpointer(tmp_path, save_every=2) as checkpointer:
        assert not checkpointer.save(1, state, None, {})
        assert checkpointer.save(2, state, None, {})
        assert not checkpointer.save(2, state, None, {}, force=True)
        assert checkpointer.save(3, state, None, {}, force=True)
        checkpointer.wait()
        assert checkpointer.latest_step == 3
    with open_checkpointer(tmp_path, save_every=2) as checkpointer:  # a start that did not restore must not overwrite
        assert not checkpointer.save(2, make_state(9), None, {})
        assert checkpointer.restore_latest_good(target(state), None)[1]["step"] == 3


def test_keeps_the_newest_steps_only(tmp_path):
    save_steps(tmp_path, 1, 2, 3, 4, keep=2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["3", "4"]
    assert restore(tmp_path, keep=2) == 4


def test_the_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    mesh = make_mesh()
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    increment = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    params = {f"{i}": jax.device_put(np.zeros((1024, 512), np.float32), sharding) for i in range(4)}
    with open_checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"params": params}, None, {})
        saved_target = target(params)
        for _ in range(5):
            params = increment(params)
        jax.block_until_ready(params)
        checkpointer.wait()
        state, _ = checkpointer.restore_latest_good({"params": saved_target}, None)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(state))


# Damage


def test_every_one_of_twenty_bit_flips_is_noticed(tmp_path):
    save_steps(tmp_path, 1)
    folder, rng = step_folder(tmp_path, 1), random.Random(0)
    for _ in range(20):
        path = rng.choice(files(folder))
        before = path.read_bytes()
        flip(path, rng)
        with pytest.raises(digests.DamagedError):
            digests.verify(folder)
        path.write_bytes(before)
    digests.verify(folder)


def test_every_file_is_forced_to_the_disk_before_the_manifest_says_so(tmp_path, monkeypatch):
    forced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: forced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    save_steps(tmp_path, 1)
    folder = step_folder(tmp_path, 1)
    listed = {str(folder / name) for name in digests.read_manifest(folder)["files"]}
    manifest = next(number for number, name in enumerate(forced) if Path(name).name.startswith("MANIFEST.json"))
    before = forced[:manifest]
    assert len(listed) > 10
    assert listed <= set(before)


def delete_largest(folder):
    max(files(folder), key=lambda path: path.stat().st_size).unlink()


def cut_largest(folder):
    path = max(files(folder / "params"), key=lambda path: path.stat().st_size)
    os.truncate(path, path.stat().st_size // 2)


def alter_manifest(folder):
    path = folder / "MANIFEST.json"
    path.write_text(path.read_text().replace('"step": 2', '"step": 3'))


DAMAGE = {
    "flipped bit": lambda folder: flip(max(files(folder / "params")), random.Random(1)),
    "file deleted": delete_largest,
    "file cut": cut_largest,
    "manifest deleted": lambda folder: (folder / "MANIFEST.json").unlink(),
    "manifest altered": alter_manifest,
    "manifest of another shape": lambda folder: (folder / "MANIFEST.json").write_text("[1]"),
    "Orbax metadata deleted": lambda folder: (folder / "_CHECKPOINT_METADATA").unlink(),
    "data position altered": lambda folder: flip(files(folder / "data")[0], random.Random(2)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_step_is_moved_aside_and_the_one_before_it_restored(tmp_path, caplog, damage):
    save_steps(tmp_path, 1, 2)
    DAMAGE[damage](step_folder(tmp_path, 2))
    assert restore(tmp_path) == 1
    assert "step 2 is rejected" in caplog.text
    assert (tmp_path / "quarantine" / "2").is_dir()
    assert not step_folder(tmp_path, 2).exists()


def test_all_steps_damaged_means_a_fresh_start_and_nothing_lost(tmp_path, caplog):
    save_steps(tmp_path, 1, 2)
    for step in (1, 2):
        cut_largest(step_folder(tmp_path, step))
    assert restore(tmp_path) is None
    assert caplog.text.count("is rejected") == 2
    assert sorted(path.name for path in (tmp_path / "quarantine").iterdir()) == ["1", "2"]
    save_steps(tmp_path, 1, 2)
    cut_largest(step_folder(tmp_path, 2))
    assert restore(tmp_path) == 1
    assert sorted(path.name for path in (tmp_path / "quarantine").iterdir()) == ["1", "2", "2.1"]


def test_empty_step_folders_leftovers_and_strangers_are_never_restored(tmp_path, caplog):
    save_steps(tmp_path, 1, 2)
    root = tmp_path / "checkpoints"
    (root / "7").mkdir()
    (root / "9.orbax-checkpoint-tmp" / "params").mkdir(parents=True)
    (root / "1.being-deleted").mkdir()
    (root / "notes.txt").write_text("mine")
    assert restore(tmp_path) == 2
    assert "step 7 is rejected: no MANIFEST.json" in caplog.text
    assert "9.orbax-checkpoint-tmp" in caplog.text
    assert "notes.txt is no checkpoint" in caplog.text
    assert sorted(path.name for path in root.iterdir()) == ["1", "2", "notes.txt"]


def test_an_unfinished_folder_does_not_stop_a_save_of_its_step(tmp_path, caplog):
    step_folder(tmp_path, 1).mkdir(parents=True)
    save_steps(tmp_path, 1)
    assert "no finished checkpoint" in caplog.text
    assert restore(tmp_path) == 1


# Saves that fail


@contextlib.contextmanager
def small_disk(folder, options):
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def save_until_it_fails(workdir, state):
    with open_checkpointer(workdir, keep=9) as checkpointer:
        for step in range(1, 10):
            checkpointer.save(step, state, None, {})


def save_then_raise(workdir, error):
    with open_checkpointer(workdir) as checkpointer:
        checkpointer.save(1, make_state(1), None, {})
        raise error


def test_a_full_disk_ends_the_run_and_leaves_the_older_steps(tmp_path, caplog):
    with small_disk(tmp_path / "disk", "size=2m") as disk:
        big = {"params": {"x": jax.random.normal(jax.random.key(0), (400, 400))}}  # 0.6 MB that does not compress
        with pytest.raises(CheckpointError, match="no space left on the disk") as caught:
            save_until_it_fails(disk, big)
        assert not list((disk / "checkpoints").glob("*tmp"))  # the space is given back
        last = finished(disk)[-1]
        assert last >= 1
        assert f"the last good checkpoint is step {last};" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 5
        with open_checkpointer(disk) as checkpointer:
            state, meta = checkpointer.restore_latest_good(target(big), None)
        assert meta == {"step": last}
        assert_same(state, big)
    assert caplog.text == ""  # Orbax's own tracebacks are kept back


def failing_from(step, monkeypatch):
    """Background saves of this step and later ones fail as if the disk were full."""
    commit = Checkpointer._commit

    def fail(self, written, folder, record):
        written()
        if record["step"] >= step:
            raise OSError(28, "No space left on device")
        commit(self, lambda: None, folder, record)

    monkeypatch.setattr(Checkpointer, "_commit", fail)


def test_a_failed_save_is_raised_by_the_next(tmp_path, monkeypatch):
    failing_from(2, monkeypatch)
    checkpointer = open_checkpointer(tmp_path)
    assert checkpointer.save(1, make_state(1), None, {})
    assert checkpointer.save(2, make_state(2), None, {})
    with pytest.raises(CheckpointError, match="step 2 was not saved"):
        checkpointer.save(3, make_state(3), None, {})
    monkeypatch.undo()
    assert checkpointer.save(2, make_state(2), None, {})  # what failed is not taken for saved
    checkpointer.close()  # and what was raised is not raised again
    assert finished(tmp_path) == [1, 2]


def test_a_failed_last_save_is_raised_at_the_end(tmp_path, monkeypatch):
    failing_from(1, monkeypatch)
    checkpointer = open_checkpointer(tmp_path)
    assert checkpointer.save(1, make_state(1), None, {})
    with pytest.raises(CheckpointError, match=r"step 1 was not saved.*no space left.*last good checkpoint is none"):
        checkpointer.close()
    assert (restore(tmp_path), step_folder(tmp_path, 1).exists()) == (None, False)


def test_a_failed_save_does_not_hide_the_error_that_ends_the_run(tmp_path, monkeypatch, caplog):
    failing_from(1, monkeypatch)
    with pytest.raises(ZeroDivisionError):
        save_then_raise(tmp_path, ZeroDivisionError())
    assert "step 1 was not saved" in caplog.text


def test_a_run_that_says_it_saved_and_stopped_ends_with_the_error_if_it_did_not(tmp_path, monkeypatch):
    with pytest.raises(Preempted):
        save_then_raise(tmp_path / "good", Preempted())
    assert finished(tmp_path / "good") == [1]
    failing_from(1, monkeypatch)
    with pytest.raises(CheckpointError, match="step 1 was not saved"):
        save_then_raise(tmp_path / "bad", Preempted())


def test_a_save_in_flight_is_finished_when_another_error_ends_the_run(tmp_path):
    with pytest.raises(ZeroDivisionError):
        save_then_raise(tmp_path, ZeroDivisionError())
    assert finished(tmp_path) == [1]


def test_a_read_only_workdir_fails_at_once(tmp_path):
    with (
        small_disk(tmp_path / "disk", "ro") as disk,
        pytest.raises(CheckpointError, match="cannot be written: Read-only"),
    ):
        open_checkpointer(disk / "run")


def test_a_workdir_that_cannot_be_made_fails_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written: Not a directory"):
        open_checkpointer(tmp_path / "file" / "run")


def test_two_runs_cannot_share_a_workdir(tmp_path):
    code = f"""
from pathlib import Path
from harvest_jax.checkpoint.checkpointer import Checkpointer
Checkpointer(Path({str(tmp_path)!r}), 1, 1, {{}})
"""
    with open_checkpointer(tmp_path):
        other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert other.returncode
    assert f"is in use by process {os.getpid()}" in other.stderr


# Checkpoints that do not fit


def changed_target(change):
    state = target(make_state())
    params = dict(state.params)
    change(params)
    return state.replace(params=params)


def abstract_like(leaf, shape=None, dtype=None):
    return jax.ShapeDtypeStruct(shape or leaf.shape, dtype or leaf.dtype, sharding=leaf.sharding)


MISFITS = {
    "shape": (
        lambda params: params.update(half=abstract_like(params["half"], shape=(8,))),
        r"params/half is bfloat16\[4\] there, bfloat16\[8\] here",
    ),
    "dtype": (
        lambda params: params.update(half=abstract_like(params["half"], dtype=jnp.float32)),
        r"params/half is bfloat16\[4\] there, float32\[4\] here",
    ),
    "missing": (lambda params: params.update(new=params["half"]), "params/new is not there"),
    "extra": (lambda params: params.pop("half"), "params/half is only there"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_other_shapes_dtypes_or_names_are_refused_by_name(tmp_path, misfit):
    save_steps(tmp_path, 1)
    change, message = MISFITS[misfit]
    with open_checkpointer(tmp_path) as checkpointer, pytest.raises(CheckpointError, match=message):
        checkpointer.restore_latest_good(changed_target(change), make_batches())
    assert restore(tmp_path) == 1  # and the step is still there


def test_a_target_without_shardings_is_refused(tmp_path):
    save_steps(tmp_path, 1)
    bare = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), make_state())
    with open_checkpointer(tmp_path) as checkpointer, pytest.raises(ValueError, match="sharding"):
        checkpointer.restore_latest_good(bare, make_batches())


def test_the_workdir_of_another_run_is_refused_naming_the_fields(tmp_path):
    save_steps(tmp_path, 1)
    other = {"seed": 1, "model": {"size": "B/16", "frames": (1, 2)}, "data_digest": "abc", "extra": True}
    with pytest.raises(CheckpointError) as caught:
        open_checkpointer(tmp_path, identity=other)
    message = str(caught.value)
    assert "model.size was 'demo' and is 'B/16' now" in message
    assert "seed was 0 and is 1 now" in message
    assert "extra was 'absent' and is True now" in message
    assert "frames" not in message
    assert "data_digest" not in message
    assert restore(tmp_path) == 1  # the refused one has let the workdir go


def test_the_position_in_the_data_survives_another_number_of_processes(tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "topology", lambda: {"processes": 2, "devices": 8, "platform": "cpu"})
        save_steps(tmp_path, 1)
    batches = make_batches()
    fresh = batches.get_state()
    with open_checkpointer(tmp_path) as checkpointer:
        assert checkpointer.restore_latest_good(target(make_state()), batches)[1]["step"] == 1
    assert batches.get_state() != fresh
    assert "topology changed" in caplog.text


def test_positions_that_differ_between_processes_are_refused(tmp_path):
    (tmp_path / "data").mkdir()
    for process, state in enumerate(({"next": 3}, {"next": 3}, {"next": 4})):
        (tmp_path / "data" / f"process_{process}-of-3.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match="go on with the same number"):
        run_identity.shared_position(tmp_path)
    (tmp_path / "data" / "process_2-of-3.json").write_text('{"next": 3}')
    assert run_identity.shared_position(tmp_path) == {"next": 3}


# The frozen parameters


def make_frozen(seed=0, sharded=True):
    spec = PartitionSpec("data") if sharded else PartitionSpec()
    values = np.random.default_rng(seed).normal(size=(8, 3)).astype(np.float32)
    return {"text": {"kernel": jax.device_put(values, NamedSharding(make_mesh(), spec))}}


def test_frozen_parameters_are_written_once_and_read_back(tmp_path):
    frozen = make_frozen()
    with open_checkpointer(tmp_path) as checkpointer:
        digest = checkpointer.save_frozen(frozen)
        checkpointer.save(1, make_state(1), None, {})
    written = {path: path.stat().st_mtime_ns for path in files(tmp_path / "frozen_text")}
    with open_checkpointer(tmp_path) as checkpointer:
        assert checkpointer.save_frozen(make_frozen(sharded=False)) == digest  # layout does not matter
        assert checkpointer.restore_latest_good(target(make_state()), None) is not None
    assert {path: path.stat().st_mtime_ns for path in files(tmp_path / "frozen_text")} == written
    with open_checkpointer(tmp_path) as checkpointer:
        assert_same(checkpointer.load_frozen(target(frozen)), frozen)
        assert checkpointer.restore_latest_good(target(make_state()), None) is not None
    assert digest == digests.tree_digest(frozen) != digests.tree_digest(make_frozen(1))


def test_the_digest_sees_names_shapes_and_dtypes(tmp_path):
    x = np.zeros(4, np.float32)
    trees = [{"a": x}, {"b": x}, {"a": x.reshape(2, 2)}, {"a": x.view(np.int32)}, {"a": x, "b": x}, {"a": {"b": x}}, {}]
    assert len({digests.tree_digest(tree) for tree in trees}) == len(trees)


def test_nothing_frozen_is_fine(tmp_path):
    with open_checkpointer(tmp_path) as checkpointer:
        digest = checkpointer.save_frozen({})
        checkpointer.save(1, make_state(1), None, {})
    with open_checkpointer(tmp_path) as checkpointer:
        assert checkpointer.load_frozen({}) == {}
        assert checkpointer.save_frozen({}) == digest
        assert checkpointer.restore_latest_good(target(make_state()), None) is not None


def test_steps_refuse_other_frozen_parameters_naming_both(tmp_path):
    with open_checkpointer(tmp_path) as checkpointer:
        old = checkpointer.save_frozen(make_frozen(0))
        checkpointer.save(1, make_state(1), None, {})
    new = digests.tree_digest(make_frozen(1))
    with open_checkpointer(tmp_path) as checkpointer, pytest.raises(CheckpointError, match=f"{old}.*{new}"):
        checkpointer.save_frozen(make_frozen(1))
    # The folder swapped for another, sound one: the steps themselves know better.
    with open_checkpointer(tmp_path / "other") as checkpointer:
        checkpointer.save_frozen(make_frozen(1))
    (tmp_path / "frozen_text").rename(tmp_path / "away")
    (tmp_path / "other" / "frozen_text").rename(tmp_path / "frozen_text")
    with open_checkpointer(tmp_path) as checkpointer:
        checkpointer.load_frozen(target(make_frozen()))
        with pytest.raises(CheckpointError, match=f"{old}.*{new}"):
            checkpointer.restore_latest_good(target(make_state()), None)


def test_other_frozen_parameters_replace_those_of_a_run_that_saved_no_step(tmp_path, caplog):
    for seed in (0, 1):
        with open_checkpointer(tmp_path) as checkpointer:
            checkpointer.save_frozen(make_frozen(seed))
    assert "are replaced" in caplog.text
    with open_checkpointer(tmp_path) as checkpointer:
        assert_same(checkpointer.load_frozen(target(make_frozen(1))), make_frozen(1))
    assert (tmp_path / "quarantine" / "frozen_text").is_dir()


@pytest.mark.parametrize("damage", [cut_largest, lambda folder: (folder / "MANIFEST.json").unlink()])
def test_damaged_or_unfinished_frozen_parameters_are_refused_or_written_anew(tmp_path, caplog, damage):
    with open_checkpointer(tmp_path) as checkpointer:
        digest = checkpointer.save_frozen(make_frozen())
        checkpointer.save(1, make_state(1), None, {})
    damage(tmp_path / "frozen_text")
    (tmp_path / "frozen_text.orbax-checkpoint-tmp").mkdir()
    with open_checkpointer(tmp_path) as checkpointer:
        with pytest.raises(CheckpointError, match=r"frozen_text cannot be used: .*(bytes, not|no MANIFEST)"):
            checkpointer.load_frozen(target(make_frozen()))
        assert checkpointer.save_frozen(make_frozen()) == digest
        assert_same(checkpointer.load_frozen(target(make_frozen())), make_frozen())
        assert checkpointer.restore_latest_good(target(make_state()), None)[1]["step"] == 1
    assert "are replaced" in caplog.text


def test_frozen_parameters_of_another_shape_are_refused_by_name(tmp_path):
    with open_checkpointer(tmp_path) as checkpointer:
        checkpointer.save_frozen(make_frozen())
        kernel = make_frozen()["text"]["kernel"]
        with pytest.raises(CheckpointError, match=r"params/text/kernel is float32\[8, 3\] there, float32\[8, 4\] here"):
            checkpointer.load_frozen({"text": {"kernel": abstract_like(kernel, shape=(8, 4))}})


# Kills

LOOP = """
import sys
from pathlib import Path
import grain, jax, jax.numpy as jnp, numpy as np
from harvest_jax.checkpoint.checkpointer import Checkpointer

batches = iter(grain.MapDataset.range(10**6).batch(2).to_iter_dataset())
noise = np.random.default_rng(0).normal(size=(256, 1024)).astype(np.float32)
state = {"params": {"x": jnp.asarray(noise)}, "step": jnp.int32(0)}
advance = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state))
step = 0
with Checkpointer(Path(sys.argv[1]), 1, 2, {}) as checkpointer:
    checkpointer.save_frozen({"text": jnp.asarray(noise)})
    restored = checkpointer.restore_latest_good(state, batches)
    if restored:
        step, expected = restored[1]["step"], state
        for _ in range(step):
            expected = advance(expected)
        state = restored[0]
        assert jax.tree.all(jax.tree.map(np.array_equal, state, expected))
    print("restored", step, flush=True)
    while True:
        assert next(batches)[0] == 2 * step
        state, step = advance(state), step + 1
        checkpointer.save(step, state, batches, {})
        print("begun", step, flush=True)
"""


def newest_whole_step(workdir):
    numbers = [int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal()]
    for step in sorted(numbers, reverse=True):
        with contextlib.suppress(digests.DamagedError):
            digests.verify(step_folder(workdir, step))
            return step
    return 0


def wait_for_a_save_in_flight(workdir):
    until = time.monotonic() + 5
    while not list(workdir.glob("checkpoints/*.orbax-checkpoint-tmp")) and time.monotonic() < until:
        pass


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_from_the_newest_whole_step(tmp_path):
    rng, expected = random.Random(0), 0
    moments = [lambda: time.sleep(rng.uniform(0, 0.3)), lambda: wait_for_a_save_in_flight(tmp_path)]
    for kill_when in [*moments, *moments, moments[0], lambda: None]:
        command = [sys.executable, "-c", LOOP, str(tmp_path)]
        with open(tmp_path / "log", "ab") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
        with process:
            try:
                assert process.stdout.readline() == f"restored {expected}\n", (tmp_path / "log").read_text()
                assert process.stdout.readline() == f"begun {expected + 1}\n"
                kill_when()
            finally:
                process.send_signal(signal.SIGKILL)
        expected = newest_whole_step(tmp_path)
    assert expected > 0
