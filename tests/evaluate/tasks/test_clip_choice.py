"""Which clip fits a sentence: questions of several rows."""

import pytest

from harvest_jax.errors import DataError
from harvest_jax.evaluate.tasks import clip_choice
from tests.helpers.colour_evaluation import COLOURS, evaluate, manifest


def asked(name, text, right, clips=tuple(COLOURS), **more):
    return [
        {
            "id": f"{name}/{clip}",
            "video": f"{clip}.mp4",
            "question_id": name,
            "text": text,
            "answer": int(clip == right),
            **more,
        }
        for clip in clips
    ]


def test_clip_choice(videos, model, tmp_path, capsys):
    rows = [
        *asked("a", "a blue thing", "blue", type="colour"),
        *asked("b", "a red thing", "blue", type="colour"),
        *asked("c", "a red or yellow thing", "yellow", ("yellow", "green"), type="two"),
        *asked("d", "a red thing", "red", ("red", "gone"), type="gone"),
        *asked("e", "a red thing", "broken", ("red", "broken"), type="gone"),
    ]
    result = evaluate("clip_choice", [*manifest(videos, tmp_path, rows), "--allow_missing"], tmp_path)
    assert (result["n_expected"], result["n_missing"]) == (5, 2)
    assert model.clips_seen == 4  # each once
    metrics = result["metrics"]
    assert (metrics["n"], metrics["accuracy"]) == (5, 40)
    assert metrics["chance"] == pytest.approx((25 * 2 + 50 * 3) / 5)
    assert {name: entry["accuracy"] for name, entry in metrics["per_type"].items()} == {
        "colour": 50,
        "two": 100,
        "gone": 0,
    }
    assert "per_type" not in capsys.readouterr().out


def test_rows_of_a_question_may_stand_apart_and_equal_clips_tie(videos, model, tmp_path):
    first, second = asked("a", "red", "red", ("red", "blue")), asked("b", "blue", "blue", ("red", "blue"))
    rows = [first[0], second[0], first[1], second[1]]
    assert evaluate("clip_choice", manifest(videos, tmp_path, rows), tmp_path)["metrics"]["accuracy"] == 100
    twice = asked("a", "red", "red", ("red", "blue"))
    twice.append({**twice[0], "id": "again", "answer": 0})
    found = evaluate("clip_choice", manifest(videos, tmp_path, twice), tmp_path)["metrics"]
    assert (found["accuracy"], found["n_tied_queries"]) == (50, 1)


@pytest.mark.parametrize(
    ("answers", "texts", "message"),
    [
        (["1"], ["x"], "two or more clips"),
        (["0", "0"], ["x", "x"], "`answer` 1 for one of them"),
        (["1", "1"], ["x", "x"], "`answer` 1 for one of them"),
        (["1", "2"], ["x", "x"], "not 1, 2"),
        (["1", "0"], ["x", "y"], "different texts"),
    ],
)
def test_a_bad_question_is_named(answers, texts, message):
    with pytest.raises(DataError, match=f"question q: .*{message}"):
        clip_choice.read_questions(["q"] * len(answers), answers, texts)
