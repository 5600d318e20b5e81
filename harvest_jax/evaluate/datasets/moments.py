"""Moments in Time: clips of 3 s of 339 actions, of people, animals and things."""

from collections.abc import Mapping
from pathlib import Path

from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.input.annotation_files import read_table
from harvest_jax.input.annotation_records import Record
from harvest_jax.input.class_names import class_text, read_classes
from harvest_jax.terminal import printable

COLUMNS = ("filename", "label", "positive", "negative")  # the file has no header; from the dataset's README.txt


def _row(record: Record, classes: frozenset[str]) -> Row:
    label = class_text(record.text("label"))
    if label not in classes:
        raise record.fault(f"{printable(label, 80)!r} is not in the file of categories")
    name = record.text("filename")
    return Row(name, name, extra={"label": label}, where=record.where)


def _read(files: Mapping[str, Path]) -> list[Row]:
    classes = frozenset(read_classes(files["classes"]))
    return [_row(record, classes) for record in read_table(files["clips"], COLUMNS, header=False)]


BENCHMARKS = (
    Benchmark(
        name="moments",
        title="Moments in Time",
        version="1",
        task="zero_shot",
        split="validation",
        files={"clips": ("validationSet.csv",), "classes": ("moments_categories.txt",)},
        read=_read,
        expected={"rows": 33_900, "videos": 33_900, "classes": 339},
        captions="none",
        settings={},
        source="moments.csail.mit.edu, after registration",
        licence="for research, after registration",
        notes="The first version, of 339 classes, 100 clips each (paper); the second has 305. The files were not seen: "
        "their form is from the dataset's README.txt and others' readers.",
    ),
)
