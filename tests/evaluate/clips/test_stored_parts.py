"""Stored frames of another part of a video than the row's."""

import numpy as np
import pytest

from harvest_jax.errors import DataError
from harvest_jax.evaluate.clips.stored_parts import other_part
from tests.helpers.colour_evaluation import evaluate, manifest, write_shards


def stored(start, end, count, rate, length):
    """The times of the frames that `harvest shards` stores of start..end of a video of `length` seconds."""
    begin, stop = start or 0.0, min(length, length if end is None else end)
    wanted = begin + (np.arange(count) + 0.5) / count * (stop - begin)
    return np.unique(np.floor(wanted * rate + 1e-9) / rate).astype(np.float32).tolist()


def test_frames_of_the_part_itself_are_never_refused():
    rng = np.random.default_rng(0)
    for _ in range(3000):
        length, rate, count = rng.uniform(1, 4000), rng.choice([0.2, 1, 12, 29.97]), int(rng.integers(1, 17))
        start = None if rng.random() < 0.3 else float(rng.uniform(0, 0.9 * length))
        end = None if rng.random() < 0.3 else float(rng.uniform((start or 0) + 0.1, 1.8 * length))
        if end is not None and length - (start or 0) < 0.5 * (end - (start or 0)):
            continue  # refused when shards are made
        times = stored(start, end, count, rate, length)
        fewer = [times[i] for i in dict.fromkeys((np.arange(count) * len(times) + len(times) // 2) // count)]
        for seconds in (times, fewer):  # and of shards that were made of shards
            assert other_part(start, end, seconds) == "", (start, end, count, rate, length)


@pytest.mark.parametrize("count", [4, 8, 16])
@pytest.mark.parametrize(
    ("of", "wanted"),
    [
        ((0, 10), (5, 8)),
        ((0, 10), (0, 8)),
        ((0, 10), (5, 10)),
        ((5, 10), (0, 10)),
        ((2, 4), (6, 9)),
        ((6, 9), (2, 4)),
        ((None, None), (0, 30)),
        ((None, None), (30, None)),
        ((5, 8), (None, None)),
        ((20, None), (None, None)),
    ],
)
def test_another_part_is_refused(of, wanted, count):
    start, end = (None if second is None else float(second) for second in wanted)
    assert "another one: frames from" in other_part(start, end, stored(*of, count, 25, 60))


def test_another_part_counts_as_missing_and_is_said(videos, model, tmp_path, capsys):
    shards = write_shards(tmp_path / "shards", videos, [(name, "red_then_blue", ("x",), {}) for name in ("a", "b")])
    rows = [
        {"id": "a", "video": "red_then_blue.mp4", "start": 0, "end": 2, "caption": "red and blue"},
        {"id": "b", "video": "red_then_blue.mp4", "start": 1.1, "end": 2, "caption": "blue"},
    ]
    words = [*manifest(videos, tmp_path, rows), *shards]
    evaluate("retrieval", words, tmp_path, code=DataError.exit_code)
    error = capsys.readouterr().err
    reason = "the part stored under its id is another one: frames from 0.1 to 1.9 s, wanted 1.1 s to 2 s"
    assert f"1 of the 2 videos of set.jsonl are not there, the first: red_then_blue.mp4 ({reason})" in error
    assert error.count("\n") == 1
    result = evaluate("retrieval", [*words, "--allow_missing"], tmp_path)
    assert result["missing"] == [{"video": "red_then_blue.mp4", "reason": reason}]
    assert result["metrics"]["t2v"]["R@1"] == 50
