"""Damaged, incomplete and foreign folders: never restored, never deleted."""

import random

import pytest

from harvest_jax.checkpoint import digests
from tests.helpers.checkpoints import cut_largest, files, flip, restore, save_steps, step_folder


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


def delete_largest(folder):
    max(files(folder), key=lambda path: path.stat().st_size).unlink()


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


def test_what_is_in_the_quarantine_stays_there(tmp_path):
    save_steps(tmp_path, 1, 2)
    for _ in range(2):
        cut_largest(step_folder(tmp_path, 2))
        assert restore(tmp_path) == 1
        save_steps(tmp_path, 2)
    assert sorted(path.name for path in (tmp_path / "quarantine").iterdir()) == ["2", "2.1"]


def test_empty_step_folders_leftovers_and_foreign_files_are_never_restored(tmp_path, caplog):
    save_steps(tmp_path, 1, 2)
    root = tmp_path / "checkpoints"
    (root / "7").mkdir()
    (root / "9.orbax-checkpoint-tmp" / "params").mkdir(parents=True)
    (root / "1.being-deleted").mkdir()
    (root / "notes.txt").write_text("mine")
    assert restore(tmp_path) == 2
    assert "step 7 is rejected: no MANIFEST.json" in caplog.text
    assert "9.orbax-checkpoint-tmp" in caplog.text
    assert "notes.txt is not a checkpoint" in caplog.text
    assert sorted(path.name for path in root.iterdir()) == ["1", "2", "notes.txt"]


def test_an_incomplete_folder_does_not_stop_a_save_of_its_step(tmp_path, caplog):
    step_folder(tmp_path, 1).mkdir(parents=True)
    save_steps(tmp_path, 1)
    assert "not a complete checkpoint" in caplog.text
    assert restore(tmp_path) == 1
