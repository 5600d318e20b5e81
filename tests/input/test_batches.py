"""The position in the data: shared by processes, saved, restored."""

import itertools
import json

import grain
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from harvest_jax.checkpoint.run_identity import check_identity
from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.errors import CheckpointError, ConfigError
from harvest_jax.train.resume_fields import identity
from tests.helpers.training_clips import (
    assert_equal,
    batches,
    block,
    captions,
    config,
    make_record,
    take,
    write,
)


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_batches_of_one(shards, count):
    alone = take(shards, 6)
    parts = [take(shards, 6, process=(p, count)) for p in range(count)]
    for step, whole in enumerate(alone):
        for name, array in whole.items():
            assert parts[0][step][name].shape[0] == 4 // count
            for p in range(count):
                assert np.array_equal(parts[p][step][name], block(array, step, p, count)), name


def test_a_run_that_an_earlier_version_began_goes_on_with_its_shares(shards):
    """Its position has no rule of shares: process p of n had every n-th row from p on."""
    alone = take(shards, 4)
    for p in range(2):
        iterator = batches(shards, process=(p, 2))
        next(iterator)
        iterator.set_state({"next_batch": 1})
        for whole in alone[1:3]:
            batch = next(iterator)
            assert all(np.array_equal(batch[name], whole[name][p::2]) for name in whole)
        state = iterator.get_state()
        assert state == {"next_batch": 3}  # and it keeps them
        iterator.set_state(state)
        assert np.array_equal(next(iterator)["ids"], alone[3]["ids"][p::2])
        iterator.close()


@pytest.mark.parametrize("step", [0, 1, 2, 3, 7])  # ten clips in batches of four: the epoch ends within the third
def test_state_goes_on_exactly(shards, step):
    straight = take(shards, step + 4)
    stopped = batches(shards)
    for _ in range(step):
        next(stopped)
    state = json.loads(json.dumps(stopped.get_state()))
    stopped.close()
    resumed = batches(shards, "data.prefetch=5")
    next(resumed)  # whatever was read before the state is set does not matter
    resumed.set_state(state)
    assert_equal([next(resumed) for _ in range(4)], straight[step:])
    assert resumed.get_state() == {"next_batch": step + 4, "share": "blocks"}
    resumed.close()


@pytest.mark.parametrize("stop", [4, 5, 6])
def test_resuming_at_the_end_of_an_epoch_with_other_workers(shards, stop):
    """Ten clips in batches of two: the fifth batch is an epoch's last."""
    straight = take(shards, 8, "train.batch_size=2")
    stopped = batches(shards, "train.batch_size=2")
    list(itertools.islice(stopped, stop))
    state = stopped.get_state()
    stopped.close()
    for workers in (0, 1) if stop == 5 else (0,):
        resumed = batches(shards, "train.batch_size=2", f"data.workers={workers}")
        resumed.set_state(state)
        assert_equal(list(itertools.islice(resumed, 8 - stop)), straight[stop:])
        resumed.close()
    drawn = [caption for batch in straight for caption in captions(batch)]
    assert len(set(drawn[:10])) == 10


def test_shards_that_were_changed_or_added_are_another_set(tmp_path):
    """What a checkpoint keeps of the data, and a run that goes on compares."""
    records = [make_record(i) for i in range(6)]
    digests = []
    for name, changed in (("same", records), ("again", records), ("added", [*records, make_record(7)])):
        write(tmp_path / name, "train", changed)
        digests.append(batches(tmp_path / name).sets.digest)
    write(tmp_path / "changed", "train", [*records[:5], make_record(5, captions=("the clip number seven",))])
    digests.append(batches(tmp_path / "changed").sets.digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    config_of = config(tmp_path / "same")
    with pytest.raises(CheckpointError, match=r"data_digest was .* and is"):
        check_identity(identity(config_of, digests[0]), identity(config_of, digests[2]), Workdir(tmp_path))


def test_orbax_saves_and_restores_the_position(shards, tmp_path):
    straight = take(shards, 6)
    stopped = batches(shards)
    for _ in range(3):
        next(stopped)
    ocp.save_checkpointables(tmp_path / "step", {"data": stopped})
    stopped.close()
    resumed = batches(shards)
    ocp.load_checkpointables(tmp_path / "step", {"data": resumed})
    assert_equal([next(resumed) for _ in range(3)], straight[3:])
    resumed.close()


def test_fewer_clips_than_a_batch(shards):
    (batch,) = take(shards, 1, "data.split=pair", "train.batch_size=8")
    assert batch["index"].tolist() == list(range(8))


def test_epochs_of_one_set(shards):
    iterator = batches(shards)
    assert isinstance(iterator, grain.DatasetIterator)
    assert iterator.sets.num_clips == 10
    assert iterator.report(25) == {"epoch": 2.5}
    iterator.close()


def test_batch_that_processes_cannot_share(shards):
    with pytest.raises(ConfigError, match=r"train\.batch_size=4 cannot be shared evenly by 3"):
        batches(shards, process=(0, 3))
