"""The frozen parameters: written once, compared with what the steps belong to, made again if damaged."""

import numpy as np
import pytest

from harvest_jax.checkpoint.tree_digest import tree_digest
from harvest_jax.errors import CheckpointError
from tests.helpers.checkpoints import (
    abstract_like,
    assert_same,
    cut_largest,
    files,
    make_frozen,
    make_state,
    open_checkpointer,
    target,
)


def begin(workdir, frozen):
    """A run that saved step 1; the digest of its frozen parameters."""
    with open_checkpointer(workdir) as checkpointer:
        digest = checkpointer.save_frozen(frozen)
        checkpointer.save(1, make_state(1), None)
    return digest


def resume(workdir, frozen):
    """(state, frozen parameters) restored for frozen parameters like these."""
    with open_checkpointer(workdir) as checkpointer:
        return checkpointer.restore(target(make_state()), target(frozen), None)


def test_they_are_written_once_and_read_back(tmp_path):
    frozen = make_frozen()
    digest = begin(tmp_path, frozen)
    written = {path: path.stat().st_mtime_ns for path in files(tmp_path / "frozen_text")}
    with open_checkpointer(tmp_path) as checkpointer:
        assert checkpointer.save_frozen(make_frozen(sharded=False)) == digest  # the sharding does not matter
    state, restored = resume(tmp_path, frozen)
    assert_same(state, make_state(1))
    assert_same(restored, frozen)
    assert {path: path.stat().st_mtime_ns for path in files(tmp_path / "frozen_text")} == written
    assert digest == tree_digest(frozen) != tree_digest(make_frozen(1))


def test_the_digest_sees_names_shapes_and_dtypes():
    x = np.zeros(4, np.float32)
    trees = [{"a": x}, {"b": x}, {"a": x.reshape(2, 2)}, {"a": x.view(np.int32)}, {"a": x, "b": x}, {"a": {"b": x}}, {}]
    assert len({tree_digest(tree) for tree in trees}) == len(trees)


def test_nothing_frozen_is_fine(tmp_path):
    begin(tmp_path, {})
    state, frozen = resume(tmp_path, {})
    assert_same(state, make_state(1))
    assert frozen == {}
    assert not (tmp_path / "frozen_text").exists()


def test_steps_refuse_other_frozen_parameters_naming_both(tmp_path):
    old = begin(tmp_path, make_frozen(0))
    new = tree_digest(make_frozen(1))
    with open_checkpointer(tmp_path) as checkpointer, pytest.raises(CheckpointError, match=f"{old}.*{new}"):
        checkpointer.save_frozen(make_frozen(1))
    # The folder replaced by another, sound one: the steps themselves name the digest.
    begin(tmp_path / "other", make_frozen(1))
    (tmp_path / "frozen_text").rename(tmp_path / "away")
    (tmp_path / "other" / "frozen_text").rename(tmp_path / "frozen_text")
    with pytest.raises(CheckpointError, match=f"{old}.*{new}"):
        resume(tmp_path, make_frozen())


def test_others_replace_those_of_a_run_that_saved_no_step(tmp_path, caplog):
    for seed in (0, 1):
        with open_checkpointer(tmp_path) as checkpointer:
            checkpointer.save_frozen(make_frozen(seed))
    assert "are replaced" in caplog.text
    begin(tmp_path, make_frozen(1))
    assert_same(resume(tmp_path, make_frozen(1))[1], make_frozen(1))
    assert (tmp_path / "quarantine" / "frozen_text").is_dir()


@pytest.mark.parametrize("damage", [cut_largest, lambda folder: (folder / "MANIFEST.json").unlink()])
def test_a_damaged_or_incomplete_copy_is_made_again(tmp_path, caplog, damage):
    digest = begin(tmp_path, make_frozen())
    damage(tmp_path / "frozen_text")
    (tmp_path / "frozen_text.orbax-checkpoint-tmp").mkdir()
    with open_checkpointer(tmp_path) as checkpointer:
        state, frozen = checkpointer.restore(target(make_state()), target(make_frozen()), None)
        assert_same(state, make_state(1))
        assert frozen is None
        with pytest.raises(CheckpointError, match=digest):  # no other ones, even now
            checkpointer.save_frozen(make_frozen(1))
        assert checkpointer.save_frozen(make_frozen()) == digest
        checkpointer.save(2, make_state(2), None)
    assert "frozen_text cannot be used" in caplog.text
    state, frozen = resume(tmp_path, make_frozen())
    assert_same((state, frozen), (make_state(2), make_frozen()))


def test_other_shapes_are_refused_by_name(tmp_path):
    begin(tmp_path, make_frozen())
    wider = {"text": {"kernel": abstract_like(make_frozen()["text"]["kernel"], shape=(8, 4))}}
    message = r"params/text/kernel is float32\[8, 3\] in the checkpoint, float32\[8, 4\] in the model"
    with open_checkpointer(tmp_path) as checkpointer, pytest.raises(CheckpointError, match=message):
        checkpointer.restore(target(make_state()), wider, None)


def test_a_wrong_digest_in_the_manifest_is_told(tmp_path):
    from harvest_jax.checkpoint import digests

    begin(tmp_path, make_frozen())
    folder = tmp_path / "frozen_text"
    manifest = digests.read_digests(folder)
    (folder / "MANIFEST.json").unlink()
    digests.write_digests(folder, {"tree_digest": "0" * 64, "arrays": manifest["arrays"]})
    with pytest.raises(CheckpointError, match=r"do not match their digest \(found [0-9a-f]{64}, expected 0{64}\)"):
        resume(tmp_path, make_frozen())
