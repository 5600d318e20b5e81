"""Something-Something v2 as classification: 174 actions with objects, told apart by motion."""

from collections.abc import Mapping
from pathlib import Path

from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.evaluate.datasets.ssv2_retrieval import without_brackets
from harvest_jax.evaluate.question_rows import text_or_number
from harvest_jax.input.annotation_files import read_records
from harvest_jax.input.annotation_records import Record
from harvest_jax.input.class_names import loose, read_classes
from harvest_jax.terminal import printable


def _row(record: Record, classes: Mapping[str, str]) -> Row:
    template = without_brackets(record.text("template"))
    if loose(template) not in classes:
        raise record.fault(f"the template {printable(template, 80)!r} is not in the file of labels")
    name = text_or_number(record, "id")
    return Row(name, name, extra={"label": classes[loose(template)]}, where=record.where)


def _read(files: Mapping[str, Path]) -> list[Row]:
    classes = {loose(name): name for name in read_classes(files["classes"])}
    return [_row(record, classes) for record in read_records(files["clips"])]


BENCHMARKS = (
    Benchmark(
        name="ssv2",
        title="Something-Something v2",
        version="1",
        task="zero_shot",
        split="validation",
        files={
            "clips": ("something-something-v2-validation.json", "labels/validation.json"),
            "classes": ("something-something-v2-labels.json", "labels/labels.json"),
        },
        read=_read,
        expected={"rows": 24_777, "videos": 24_777, "classes": 174},
        captions="none",
        settings={},
        source="www.qualcomm.com/developer/software/something-something-v-2-dataset, after registration",
        licence="for research, after registration",
        notes="The test part has no labels. The files were not seen: their form and 24,777 are from others' readers "
        "and notes ([{id, label, template, placeholders}]; an object of classes and numbers). Videos are id.webm.",
    ),
)
