"""Labels and questions of stored clips as training examples, and where the classes come from."""

import numpy as np
import pytest

from harvest_jax.errors import DataError
from harvest_jax.input.pipeline import training_batches
from harvest_jax.input.targets import training_classes
from tests.helpers.training_clips import PATCH, SIZE, TOKENIZER, config, make_record, write

LABELS = ("run", "sit_down", "run", "jump")
ANSWERS = ("Two", "one", "two", "red  car")
CLASSIFY, ASK = "objective.name=classification", "objective.name=videoqa"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")
    rows = zip(LABELS, ANSWERS, strict=True)
    extras = [{"label": label, "question": "how many?", "answer": answer} for label, answer in rows]
    write(folder, "train", [make_record(i, captions=(), extra=extra) for i, extra in enumerate(extras)])
    write(folder, "none", [make_record(0, extra={"label": " "})])
    return folder


def batch_of(folder, *overrides):
    run = config(folder, *overrides)
    batches = training_batches(run, SIZE, PATCH, TOKENIZER, 0, 1, training_classes(run))
    try:
        return next(batches)
    finally:
        batches.close()


def test_classes_are_the_sorted_labels_of_the_split_or_those_of_a_file(labelled, tmp_path):
    assert training_classes(config(labelled, CLASSIFY)) == ("jump", "run", "sit down")
    (tmp_path / "classes.txt").write_text("sit down\nrun\njump\nfly\n")
    named = config(labelled, CLASSIFY, f"objective.classes={tmp_path / 'classes.txt'}")
    assert training_classes(named) == ("sit down", "run", "jump", "fly")


def test_answers_are_the_most_frequent_first(labelled, tmp_path):
    assert training_classes(config(labelled, ASK)) == ("two", "one", "red car")
    assert training_classes(config(labelled, ASK, "objective.max_classes=1")) == ("two",)
    (tmp_path / "answers.txt").write_text("One\nTWO\nthree\n")
    named = config(labelled, ASK, f"objective.classes={tmp_path / 'answers.txt'}", "objective.max_classes=2")
    assert training_classes(named) == ("one", "two")


def test_a_column_without_values_is_refused(labelled):
    with pytest.raises(DataError, match=r"no record of split 'none' .* has a column `label`"):
        training_classes(config(labelled, CLASSIFY, "data.split=none"))
    with pytest.raises(DataError, match="column `verb`"):
        training_classes(config(labelled, CLASSIFY, "objective.label_column=verb"))


def test_labels_are_numbers_of_classes(labelled):
    batch = batch_of(labelled, CLASSIFY)
    assert set(batch) == {"patches", "positions", "labels", "index"}
    assert batch["labels"].dtype == np.int32
    assert sorted(batch["labels"].tolist()) == [0, 1, 1, 2]


def test_a_label_that_is_no_class_and_a_missing_one_name_the_record(labelled, tmp_path):
    (tmp_path / "classes.txt").write_text("run\njump\n")
    with pytest.raises(DataError, match=r"record 1 \(id clip-1\) .*the label 'sit_down' is none of the 2 classes"):
        batch_of(labelled, CLASSIFY, f"objective.classes={tmp_path / 'classes.txt'}")
    file = f"objective.classes={tmp_path / 'classes.txt'}"
    with pytest.raises(DataError, match=r"record 0 \(id clip-0\) .*no `label`"):
        batch_of(labelled, CLASSIFY, file, "data.split=none", "train.batch_size=1")


def test_questions_hold_their_answers_first_token_at_the_mask(labelled):
    batch = batch_of(labelled, ASK, "objective.max_classes=2")
    assert batch["noise"].dtype == batch["labels"].dtype == np.int32
    assert len(set(batch["noise"].tolist())) == 4
    assert sorted(batch["labels"].tolist()) == [-1, 0, 0, 1]  # "red car" is left out
    for ids, slots in zip(batch["ids"], batch["slots"], strict=True):
        assert slots.shape == (1,)
        assert ids[slots[0] + 1] == TOKENIZER.eot
        assert TOKENIZER.decode(ids[: slots[0]]) == "question : how many ? answer :"
    first = {TOKENIZER.encode(answer)[0] for answer in ("one", "two", "red")}
    assert set(np.take_along_axis(batch["ids"], batch["slots"], axis=1)[:, 0].tolist()) == first


def test_one_of_several_questions_is_drawn_each_time_and_the_same_one_again(tmp_path):
    answers = ["one", "two", "three"]
    several = {"question": ["how many?", "which number?", "say it"], "answer": answers}
    write(tmp_path, "train", [make_record(i, captions=(), extra=several) for i in range(4)])
    run = config(tmp_path, ASK)
    assert training_classes(run) == ("one", "three", "two")
    batches = training_batches(run, SIZE, PATCH, TOKENIZER, 0, 1, training_classes(run))
    taken = [next(batches) for _ in range(6)]
    batches.set_state({"next_batch": 4})
    again = [next(batches) for _ in range(2)]
    batches.close()
    rows = [row for batch in taken for row in zip(batch["ids"], batch["slots"][:, 0], strict=True)]
    drawn = [TOKENIZER.decode(ids[1:slot]) for ids, slot in rows]
    labels = [label for batch in taken for label in batch["labels"].tolist()]
    number = {"how many ?": 0, "which number ?": 2, "say it": 1}  # of the answer among the classes
    assert [number[text.removeprefix("question : ").removesuffix(" answer :")] for text in drawn] == labels
    assert set(labels) == {0, 1, 2}
    for batch, same in zip(taken[4:], again, strict=True):
        assert all(np.array_equal(batch[name], same[name]) for name in batch)


def test_lists_of_questions_that_do_not_fit_name_the_record(tmp_path):
    write(tmp_path, "train", [make_record(0, extra={"question": ["how many?", "who?"], "answer": ["one"]})])
    with pytest.raises(DataError, match=r"record 0 .*several questions are lists of equal length, not `question` 2"):
        batch_of(tmp_path, ASK, "train.batch_size=1")


def test_without_a_head_every_answer_trains(labelled):
    run = config(labelled, ASK, "objective.answer_from=mask")
    batches = training_batches(run, SIZE, PATCH, TOKENIZER, 0, 1)
    assert next(batches)["labels"].tolist() == [0, 0, 0, 0]
    batches.close()


def test_loader_processes_make_the_same_examples(labelled):
    alone, shared = batch_of(labelled, CLASSIFY), batch_of(labelled, CLASSIFY, "data.workers=1")
    for name, array in alone.items():
        np.testing.assert_array_equal(array, shared[name])
