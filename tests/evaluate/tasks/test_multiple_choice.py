"""Options and answers of a row, and the accuracy of choosing the most similar option."""

import csv
import json

import numpy as np
import pytest

from harvest_jax.errors import DataError, NonFiniteError
from harvest_jax.evaluate.tasks import multiple_choice
from tests.helpers.annotations import ANNOTATIONS
from tests.helpers.colour_evaluation import COLOURS, evaluate, manifest


def test_multiple_choice(videos, model, tmp_path, capsys):
    names = list(COLOURS)
    rows = [
        {"video": f"{name}.mp4", "options": [f"a {other} thing" for other in names], "answer": i, "type": "colour"}
        for i, name in enumerate(names)
    ]
    rows.append({"id": "same", "video": "red.mp4", "options": ["it is red", "it is red"], "answer": 1, "type": "tie"})
    rows.append({"video": "broken.mp4", "options": ["red", "blue"], "answer": 0, "type": "colour"})
    result = evaluate("multiple_choice", manifest(videos, tmp_path, rows), tmp_path)
    assert (result["n_expected"], result["n_missing"]) == (6, 1)
    assert result["metrics"]["accuracy"] == pytest.approx(100 * 4.5 / 6)
    assert result["metrics"]["chance"] == pytest.approx((4 * 25 + 2 * 50) / 6)
    assert result["metrics"]["per_type"]["tie"] == {"n": 1, "accuracy": 50}
    assert model.clips_seen == 4  # two questions about one video: seen once
    assert any("equal scores" in warning for warning in result["warnings"])
    words = manifest(videos, tmp_path, rows[:-1])
    assert evaluate("multiple_choice", [*words, "--config.strict=True"], tmp_path)  # equal options are no fault
    rows[-2]["options"] = ["it is here", "it is there"]
    words = manifest(videos, tmp_path, rows[:-1])
    evaluate("multiple_choice", [*words, "--config.strict=True"], tmp_path, code=DataError.exit_code)
    assert "equal scores leave the figures open by up to 20.00 points" in capsys.readouterr().err


def test_the_average_of_frames_stands_beside_where_asked_for(videos, model, tmp_path, capsys):
    rows = [
        {"video": f"{name}.mp4", "options": ["red", "blue"], "answer": answer, "type": name}
        for name, answer in (("red", 0), ("blue", 1), ("broken", 0))
    ]
    words = manifest(videos, tmp_path, rows)
    plain = evaluate("multiple_choice", words, tmp_path)
    beside = evaluate("multiple_choice", [*words, "--config.frame_average=True"], tmp_path)
    average = beside["metrics"].pop("frame_average")
    assert beside["metrics"] == plain["metrics"]
    assert average["accuracy"] == plain["metrics"]["accuracy"] == pytest.approx(200 / 3)  # this model averages frames
    assert average["per_type"] == plain["metrics"]["per_type"]
    assert beside["protocol_hash"] != plain["protocol_hash"]
    assert (model.clips_seen, "average of frames" in capsys.readouterr().out) == (2 + 2 + 4 * 2, True)


def test_options_may_be_asked_with_their_question(videos, model, tmp_path, capsys):
    rows = [
        {"id": "a", "video": "red.mp4", "question": "blue?", "a1": "no", "a2": "yes", "answer": 0},
        {"id": "b", "video": "blue.mp4", "question": "blue?", "a1": "no", "a2": "yes", "answer": 1},
    ]
    words = manifest(videos, tmp_path, rows)
    result = evaluate("multiple_choice", [*words, "--config.prompt={question} {option}"], tmp_path)
    assert result["metrics"]["accuracy"] == 50  # this model reads no yes and no: all options tie
    del rows[1]["question"]
    rows[1]["label"] = "x"
    words = manifest(videos, tmp_path, rows)
    evaluate("multiple_choice", [*words, "--config.prompt={question} {option}"], tmp_path, code=DataError.exit_code)
    assert "1 rows have no `question`, the first: b" in capsys.readouterr().err


def test_options_come_as_a_list_or_as_columns():
    five = ["v", "w", "x", "y", "z"]
    for extra in (
        {"options": json.dumps(five), "answer": "2"},
        {"options": five, "answer": 2},
        {f"option_{i}": text for i, text in enumerate(five)} | {"answer": "2"},
        {f"option{i}": text for i, text in enumerate(five)} | {"answer": "2"},
        {f"a{i + 1}": text for i, text in enumerate(five)} | {"answer": "2", "age": "7"},
        {f"a{i}": text for i, text in enumerate(five)} | {"answer": 2, "options": ""},
    ):
        assert multiple_choice.read_options("r", extra) == (five, 2)


def test_option_columns_are_taken_by_number_and_may_be_fewer_in_a_row():
    columns = {f"option_{i}": str(i) for i in reversed(range(12))}
    assert multiple_choice.read_options("r", columns | {"answer": "11"}) == ([str(i) for i in range(12)], 11)
    assert multiple_choice.read_options("r", {"a1": "x", "a2": "y", "a3": "", "answer": "1"}) == (["x", "y"], 1)


def test_an_option_or_answer_may_be_the_number_zero():
    assert multiple_choice.read_options("r", {"options": [0, 1.5], "answer": 0}) == (["0", "1.5"], 0)
    assert multiple_choice.read_options("r", {"a1": 1, "a2": 0, "answer": 1}) == (["1", "0"], 1)


def test_answers_may_be_counted_from_one_if_that_is_said():
    two = {"options": ["a", "b"]}
    assert multiple_choice.read_options("r", two | {"answer": "2"}, base=1) == (["a", "b"], 1)
    for answer in (0, 3, "x"):
        with pytest.raises(DataError, match=r"must be 1\.\.2"):
            multiple_choice.read_options("r", two | {"answer": answer}, base=1)


def test_answers_from_one_are_noticed_even_if_the_last_option_is_never_right(videos, model, tmp_path, capsys):
    five = [f"{colour} thing" for colour in ("red", "green", "blue", "yellow", "grey")]
    rows = [
        {"id": f"{name} {n}", "video": f"{name}.mp4", "options": five, "answer": number}
        for n in range(8)
        for number, name in enumerate(COLOURS, 1)
    ]
    words = manifest(videos, tmp_path, rows)
    evaluate("multiple_choice", words, tmp_path, code=DataError.exit_code)
    error = capsys.readouterr().err
    assert "none of the 32 rows has the `answer` 0: are they counted from 1?" in error
    assert error.count("\n") == 1
    assert model.batches == []
    assert evaluate("multiple_choice", [*words, "--config.answer_base=1"], tmp_path)["metrics"]["accuracy"] == 100
    assert evaluate("multiple_choice", [*words, "--config.answer_base=0"], tmp_path)["metrics"]["accuracy"] == 0
    few = manifest(videos, tmp_path, rows[:28])  # 0.8 to the power of 28 is 0.0019: it may be chance
    assert evaluate("multiple_choice", few, tmp_path)["metrics"]["accuracy"] == 0


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"answer": "0"}, "needs `options`"),
        ({"options": '["only"]', "answer": "0"}, "two or more"),
        ({"options": '["a", "b"', "answer": "0"}, "must be a JSON list"),
        ({"options": '{"a": 1}', "answer": "0"}, "must be a JSON list"),
        ({"options": 7, "answer": "0"}, "must be a JSON list"),
        ({"options": '["a", " "]', "answer": "0"}, "option 1 is empty"),
        ({"options": '["a", null]', "answer": "0"}, "option 1 is empty"),
        ({"options": '["a", true]', "answer": "0"}, "option 1 is empty"),
        ({"a1": "x", "a2": "", "a3": "z", "answer": "0"}, "option 1 is empty"),
        ({"options": '["a", "b"]', "answer": "2"}, r"0\.\.1.*counted from 1\? set --config.answer_base=1"),
        ({"options": '["a", "b"]', "answer": "3"}, r"0\.\.1, the right option's number, not '3'$"),
        ({"options": '["a", "b"]', "answer": "-1"}, r"0\.\.1"),
        ({"options": '["a", "b"]', "answer": "a"}, "the right option's number, not 'a'"),
        ({"options": '["a", "b"]'}, "not None"),
    ],
)
def test_a_bad_row_is_named_with_its_fault(extra, message):
    with pytest.raises(DataError, match=message) as error:
        multiple_choice.read_options("row7", extra)
    assert "row7" in str(error.value)
    assert "\n" not in str(error.value)


def rows(*values):
    return [np.array(row, np.float32) for row in values]


def scored(scores, answer, missing, types=None):
    sizes = np.array([len(options) for options in scores])
    return multiple_choice.score(multiple_choice.rank(scores, answer, missing), sizes, missing, types)


def test_accuracy_chance_and_ties():
    scores = rows([3, 1, 2, 0, 0], [1, 3, 2, 0, 0], [5, 5, 5, 0, 0], [1, 2])
    found = scored(scores, np.array([0, 0, 1, 1]), np.zeros(4, bool))
    assert found["accuracy"] == pytest.approx(100 * (1 + 0 + 1 / 3 + 1) / 4)
    assert found["chance"] == pytest.approx((3 * 20 + 50) / 4)
    assert (found["n"], found["n_tied_queries"]) == (4, 1)
    assert (found["optimistic"]["accuracy"], found["pessimistic"]["accuracy"]) == (75, 50)


def test_a_missing_video_is_wrong():
    scores = rows([1, 0], [np.nan, np.nan])
    found = scored(scores, np.array([0, 0]), np.array([False, True]))
    assert (found["accuracy"], found["optimistic"]["accuracy"], found["n"]) == (50, 50, 2)
    alone = scored(rows([1, 0], [0, 0, 0]), np.array([0, 0]), np.array([False, True]))
    assert alone["accuracy"] == 50  # the only question with three options is the missing one
    with pytest.raises(NonFiniteError):
        scored(scores, np.array([0, 0]), np.zeros(2, bool))


def test_types_are_counted_apart():
    scores = rows([1, 0], [1, 0], [0, 1])
    found = scored(scores, np.zeros(3, np.int64), np.zeros(3, bool), ["move", "turn", "move"])
    assert found["per_type"] == {"move": {"n": 2, "accuracy": 50}, "turn": {"n": 1, "accuracy": 100}}
    assert "per_group" not in found


def test_groups_of_types_are_counted_apart(videos, model, tmp_path, capsys):
    rows = [
        {"video": f"{name}.mp4", "options": [name, "grey"], "answer": 0, "type": name[0], "group": group}
        for name, group in zip(COLOURS, "xxyy", strict=True)
    ]
    rows[0]["answer"] = 1
    found = evaluate("multiple_choice", manifest(videos, tmp_path, rows), tmp_path)["metrics"]
    assert found["per_group"] == {"x": {"n": 2, "accuracy": 50}, "y": {"n": 2, "accuracy": 100}}
    assert len(found["per_type"]) == 4


@pytest.mark.skipif(not (ANNOTATIONS / "tgif_qa").is_dir(), reason="no annotation files here")
@pytest.mark.parametrize(("file", "count"), [("action", 2274), ("transition", 6232)])
def test_tgif_questions_are_read_as_they_come(file, count):
    with (ANNOTATIONS / "tgif_qa" / f"Test_{file}_question.csv").open(encoding="utf-8") as stream:
        table = list(csv.DictReader(stream, delimiter="\t"))
    read = [multiple_choice.read_options(row["key"], row) for row in table]
    assert len(read) == count
    assert all(len(options) == 5 for options, _ in read)
    assert {answer for _, answer in read} == {0, 1, 2, 3, 4}


@pytest.mark.skipif(not (ANNOTATIONS / "nextqa").is_dir(), reason="no annotation files here")
def test_nextqa_questions_are_read_as_they_come():
    with (ANNOTATIONS / "nextqa" / "val.csv").open(encoding="utf-8") as stream:
        read = [multiple_choice.read_options(row["qid"], row) for row in csv.DictReader(stream)]
    assert len(read) == 4996
    assert all(len(options) == 5 for options, _ in read)
