"""TGIF-QA: repeated actions, state transitions, single frames and repetition counts of animated GIFs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.evaluate.question_rows import choice, known
from harvest_jax.input.annotation_files import read_table
from harvest_jax.input.annotation_records import Record

OPTION_COLUMNS = ("a1", "a2", "a3", "a4", "a5")
FRAME_TYPES = {"0": "object", "1": "number", "2": "color", "3": "location"}  # dataset/README.md of TGIF-QA
HIGHEST_COUNT = 10


def _choice(record: Record) -> dict[str, Any]:
    return choice(record, [record.text(name) for name in OPTION_COLUMNS])


def _frame(record: Record) -> dict[str, Any]:
    return {"answer": record.text("answer"), "type": known(record, "type", FRAME_TYPES)}


def _count(record: Record) -> dict[str, Any]:
    return {"answer": record.whole("answer", 0, HIGHEST_COUNT)}


def _reader(
    of_kind: Callable[[Record], dict[str, Any]], columns: tuple[str, ...]
) -> Callable[[Mapping[str, Path]], list[Row]]:
    """A reader of one of the four tables: tabs, a header, quotes are letters, although the name ends in .csv."""

    def read(files: Mapping[str, Path]) -> list[Row]:
        needed = ("gif_name", "question", "answer", "vid_id", *columns)
        records = read_table(files["questions"], needed, "\t", quotes=False)
        return [
            Row(
                record.text("vid_id"),  # of the question, in spite of its name; `key` is that of the GIF
                record.text("gif_name"),
                extra={"question": record.text("question"), **of_kind(record)},
                where=record.where,
            )
            for record in records
        ]

    return read


_COMMON: dict[str, Any] = {
    "version": "1",
    "split": "test (of the later, larger version with 165,000 questions, not of CVPR 2017's)",
    "captions": "none",
    "source": "the tables are in dataset/ of github.com/YunseokJANG/tgif-qa, links to the GIFs in its README.md",
    "licence": "for academic purposes only",
}
_OPTIONS_ALONE = (
    "Over 90 % can be answered from the options alone (tgif-qa issue 18): weak evidence of seeing. That the question "
    "stands before its option is our choice, and ClipBERT's."
)

BENCHMARKS = (
    Benchmark(
        name="tgif_action",
        title="TGIF-QA action",
        task="multiple_choice",
        files={"questions": ("Test_action_question.csv",)},
        read=_reader(_choice, OPTION_COLUMNS),
        expected={"rows": 2274, "videos": 2274},
        settings={"prompt": "{question} {option}"},
        notes=_OPTIONS_ALONE,
        **_COMMON,
    ),
    Benchmark(
        name="tgif_transition",
        title="TGIF-QA transition",
        task="multiple_choice",
        files={"questions": ("Test_transition_question.csv",)},
        read=_reader(_choice, OPTION_COLUMNS),
        expected={"rows": 6232, "videos": 3116},
        settings={"prompt": "{question} {option}"},
        notes=_OPTIONS_ALONE,
        **_COMMON,
    ),
    Benchmark(
        name="tgif_frame",
        title="TGIF-QA frame",
        task="videoqa",
        files={
            "questions": ("Test_frameqa_question.csv",),
            "answers": ("Train_frameqa_question.csv", "tgif_frame_answers.txt"),
        },
        read=_reader(_frame, ("type",)),
        expected={"rows": 13_691, "videos": 7132},
        settings={},
        notes="The candidates are the answers of the training questions (ClipBERT has 1,540 of them). The test set has "
        "933 answers, 107 of them of several tokens, of which only the first is scored.",
        **_COMMON,
    ),
    Benchmark(
        name="tgif_count",
        title="TGIF-QA count",
        task="counting",
        files={"questions": ("Test_count_question.csv",)},
        read=_reader(_count, ()),
        expected={"rows": 3554, "videos": 3554},
        settings={},
        notes="Mean squared error, lower is better. 918 answers are 0 and none is 1; TGIF-QA's own program counts 0 as "
        "1 and predicts 1 to 10 (rule=tgif_qa). 10 means ten or more.",
        **_COMMON,
    ),
)
