"""Several sets of clips, mixed by weight."""

import os

import numpy as np
import pytest

from harvest_jax.errors import ConfigError
from tests.helpers.training_clips import WORDS, assert_equal, batches, block, captions, config, make_record, take, write


@pytest.fixture(scope="module")
def two_sets(shards, tmp_path_factory):
    stills = tmp_path_factory.mktemp("stills")
    write(stills, "train", [make_record(i, frames=1, captions=(f"picture {WORDS[i]}",)) for i in range(4)])
    return f"{shards},{stills}"


def test_sets_are_mixed_by_weight(two_sets):
    taken = take(two_sets, 12, "data.weights=(3, 1)")
    drawn = [caption for batch in taken for caption in captions(batch)]
    pictures = [caption for caption in drawn if "picture" in caption]
    assert len(pictures) == len(drawn) / 4 == 12
    assert all(
        sum("picture" in caption for caption in captions(batch)) == 1 for batch in taken
    )  # in every batch of four
    for kind, clips in (("picture", 4), ("clip", 10)):  # every set in whole passes, each in another order
        seen = [caption for caption in drawn if kind in caption]
        passes = [seen[begin : begin + clips] for begin in range(0, len(seen) - clips + 1, clips)]
        assert len(passes) >= 3
        assert all(len(set(once)) == clips for once in passes)
        assert len({tuple(once) for once in passes}) > 1


def test_sets_without_weights_are_mixed_by_size(two_sets):
    taken = take(two_sets, 14)
    drawn = [caption for batch in taken for caption in captions(batch)]
    assert sum("picture" in caption for caption in drawn) == len(drawn) * 4 // 14


def test_a_mixture_resumes_exactly_and_is_shared_by_processes(two_sets):
    overrides = ("data.weights=(2, 1)",)
    whole = take(two_sets, 6, *overrides)
    iterator = batches(two_sets, *overrides)
    iterator.set_state({"next_batch": 4})
    assert_equal([next(iterator), next(iterator)], whole[4:])
    assert iterator.report(30) == {
        f"epoch/{os.path.basename(folder)}": pytest.approx(value)
        for folder, value in zip(two_sets.split(","), (2.0, 2.5), strict=True)
    }
    iterator.close()
    parts = [take(two_sets, 6, *overrides, process=(index, 2)) for index in range(2)]
    for number, batch in enumerate(whole):
        for name, rows in batch.items():
            for index, part in enumerate(parts):
                assert np.array_equal(part[number][name], block(rows, number, index, 2)), name


@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_process_reads_every_set_by_its_weight(two_sets, count):
    """Each of four processes has one row of a batch; with every fourth row, three of them would see no picture."""
    for index in range(count):
        taken = take(two_sets, 16, "data.weights=(3, 1)", process=(index, count))
        drawn = [caption for batch in taken for caption in captions(batch)]
        assert len(drawn) == 64 // count
        assert sum("picture" in caption for caption in drawn) == len(drawn) // 4


@pytest.mark.parametrize(
    ("shards_field", "weights", "fault"),
    [
        ("a,b", "(1,)", "1 numbers for 2 folders"),
        ("a,b", "(1, 0)", "data.weights=0.0 is outside"),
        ("a,b", "(1, 'x')", "data.weights: expected a number"),
        ("a,", "()", "empty folder"),
        ("a,b,a", "()", "twice"),
    ],
)
def test_mixtures_that_cannot_be(shards_field, weights, fault):
    with pytest.raises(ConfigError, match=fault):
        config(shards_field, f"data.weights={weights}")
