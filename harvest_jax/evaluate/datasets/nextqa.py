"""NExT-QA: why, how, when and what, five options each, about everyday videos of VidOR."""

from collections.abc import Mapping
from pathlib import Path

from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.evaluate.question_rows import choice, known
from harvest_jax.input.annotation_files import only, read_table
from harvest_jax.input.annotation_records import Record

OPTION_COLUMNS = ("a0", "a1", "a2", "a3", "a4")
# As NExT-QA's eval_mc.py counts: what happened before (TP) belongs to what happened after (TN).
TYPES = {code: code for code in ("CW", "CH", "TN", "TC", "DC", "DL", "DO")} | {"TP": "TN"}
GROUPS = {"C": "causal", "T": "temporal", "D": "descriptive"}


def _row(record: Record) -> Row:
    video, kind = record.text("video"), known(record, "type", TYPES)
    extra = choice(record, [record.text(name) for name in OPTION_COLUMNS])
    extra |= {"question": record.text("question"), "type": kind, "group": GROUPS[kind[0]]}
    name = f"{video}_{record.text('qid')}"  # `qid` counts the questions of one video
    return Row(name, video, extra=extra, where=record.where)


def _read(files: Mapping[str, Path]) -> list[Row]:
    columns = ("video", "question", "answer", "qid", "type", *OPTION_COLUMNS)
    return [_row(record) for record in read_table(only(files), columns)]


BENCHMARKS = (
    Benchmark(
        name="nextqa",
        title="NExT-QA (multiple choice)",
        version="1",
        task="multiple_choice",
        split="val",
        files={"questions": ("nextqa/val.csv", "nextqa_val.csv", "val.csv")},
        read=_read,
        expected={"rows": 4996, "videos": 570},
        captions="none",
        settings={"prompt": "{question} {option}"},
        source="val.csv is in dataset/nextqa of github.com/doc-doc/NExT-QA, the videos are linked there",
        licence="MIT (the questions); the videos are VidOR's, of Flickr",
        notes="That a question stands before its option is our choice. Types: CW why, CH how, TN before and after (the "
        "file's TN and TP), TC when, DC how many, DL where, DO other; groups: causal, temporal, descriptive, as the "
        "official program. In VidOR's own folders videos have a folder before their number (map_vid_vidorID.json).",
    ),
)
