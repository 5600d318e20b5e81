"""Damaged records: named, replaced, counted against one budget."""

import itertools
import json

import numpy as np
import pytest

from harvest_jax.errors import DataError
from tests.helpers.shard_files import damage, write_records
from tests.helpers.training_clips import (
    batches,
    captions,
    make_record,
    take,
    write,
)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"jpegs": (b"not a jpeg",) * 6}, "frame 0 cannot be read as JPEG"),
        ({"jpegs": (make_record(0).jpegs[0][:300],) * 6}, "frame 0 cannot be read as JPEG"),
        ({"jpegs": (make_record(0).jpegs[0], *make_record(0, height=48).jpegs[1:])}, "frame . is .*48, 52, 3"),
        ({"jpegs": (make_record(0).jpegs[0], *make_record(0, height=32).jpegs[1:])}, "frame . is .*32, 52, 3"),
        ({"jpegs": (), "seconds": ()}, "no frames"),
        ({"captions": ()}, "no caption"),
    ],
)
def test_a_bad_record_is_named(tmp_path, changes, fault):
    write(tmp_path, "train", [make_record(5, **changes)])
    iterator = batches(tmp_path)
    with pytest.raises(DataError, match=f"record 0 .*clip-5.* of split train in {tmp_path}.*{fault}") as caught:
        next(iterator)
    assert "\n" not in str(caught.value)
    iterator.close()


@pytest.fixture
def damaged(tmp_path):
    write(tmp_path, "train", [make_record(i) for i in range(6)])
    sound = take(tmp_path, 3)
    damage(tmp_path, "train", 2)
    damage(tmp_path, "train", 3)
    return tmp_path, sound


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_records_are_replaced_and_counted(damaged, caplog, workers):
    folder, sound = damaged
    iterator = batches(folder, "data.bad_records=2", f"data.workers={workers}")
    taken = [next(iterator) for _ in range(3)]
    assert iterator.report(12)["bad_records"] == 2
    iterator.close()
    lines = [record.message for record in caplog.records if "is damaged" in record.message]
    assert sorted(line.split(" of ")[0] for line in lines) == ["rank 0: record 2", "rank 0: record 3"]  # each once
    replaced = 0
    for before, after in zip(sound, taken, strict=True):
        assert before.keys() == after.keys()
        for row, (was, now) in enumerate(zip(captions(before), captions(after), strict=True)):
            if was in ("the clip number three", "the clip number four"):  # records 2 and 3 of the stored order
                assert now == "the clip number five"
                replaced += 1
            else:
                assert all(np.array_equal(before[name][row], after[name][row]) for name in before)
    assert replaced == 4


def test_a_resumed_run_remembers_its_damaged_records(tmp_path):
    write(tmp_path, "train", [make_record(i) for i in range(6)])
    damage(tmp_path, "train", 2)
    first = batches(tmp_path, "data.bad_records=1")
    list(itertools.islice(first, 2))
    state = json.loads(json.dumps(first.get_state()))
    first.close()
    assert state == {"next_batch": 2, "share": "blocks", "damaged": [[0, 2]]}
    damage(tmp_path, "train", 4)
    resumed = batches(tmp_path, "data.bad_records=1")
    resumed.set_state(state)
    with pytest.raises(DataError, match=r"record 4 .*one more than data\.bad_records=1"):
        list(itertools.islice(resumed, 3))
    resumed.close()


@pytest.mark.parametrize("allowed", [0, 1])
def test_one_damaged_record_more_than_allowed_ends_the_run(damaged, allowed):
    folder, _ = damaged
    iterator = batches(folder, f"data.bad_records={allowed}")
    with pytest.raises(DataError, match="damaged.*again" if not allowed else "more than data.bad_records=1"):
        list(itertools.islice(iterator, 3))
    iterator.close()


def test_a_set_of_damaged_records_alone_is_given_up(tmp_path):
    write(tmp_path, "train", [make_record(i) for i in range(2)])
    damage(tmp_path, "train", 0)
    damage(tmp_path, "train", 1)
    iterator = batches(tmp_path, "data.bad_records=100", "train.batch_size=2")
    with pytest.raises(DataError, match="damaged"):
        next(iterator)
    iterator.close()


def test_bytes_that_are_no_record_are_named(tmp_path):
    write_records(tmp_path, "train", [b"something else"])
    iterator = batches(tmp_path)
    with pytest.raises(DataError, match=f"record 0 of split train in {tmp_path}"):
        next(iterator)
    iterator.close()


def test_a_bad_record_is_named_by_a_worker_process(tmp_path):
    write(tmp_path, "train", [make_record(5, jpegs=(b"",) * 6)])
    iterator = batches(tmp_path, "data.workers=1")
    with pytest.raises(DataError, match="clip-5") as caught:
        next(iterator)
    assert "\n" not in str(caught.value)
    iterator.close()
