"""VELOCITI: does a caption of an event fit a film clip of 10 s better than one with another agent, action or order?

arXiv 2406.10889. The fields and their meaning are those of the data card at
huggingface.co/datasets/katha-ai-iiith/VELOCITI and of github.com/katha-ai/VELOCITI (data.py); the file was not seen.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.input.annotation_files import holds_json, only, read_json_rows, read_table
from harvest_jax.input.annotation_records import Record

_FIELDS = ("video_id", "test_name", "pos", "neg", "in_subset")
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


def _records(path: Path) -> list[Record]:
    """The records of a CSV file, a JSON list or lines of JSON, by the first letter of the file."""
    return read_json_rows(path) if holds_json(path) else read_table(path, _FIELDS)


def _read_all(files: Mapping[str, Path]) -> list[Row]:
    rows = []
    for number, record in enumerate(_records(only(files))):
        test = record.text("test_name")
        extra = {"options": [record.text("pos"), record.text("neg")], "answer": 0, "type": test}
        rows.append(Row(f"{test}-{number}", record.text("video_id"), extra=extra))
    return rows


def _read_subset(files: Mapping[str, Path]) -> list[Row]:
    kept = []
    for row, record in zip(_read_all(files), _records(only(files)), strict=True):
        inside = _BOOLEANS.get(str(record.value("in_subset")).strip().lower())
        if inside is None:
            raise record.fault(f"'in_subset' must be true or false, is {record.value('in_subset')!r:.40}")
        if inside:
            kept.append(row)
    return kept


_VELOCITI = Benchmark(
    name="velociti",
    title="VELOCITI",
    version="1",
    task="multiple_choice",
    split="test",
    files={"tests": ("velociti.csv", "velociti.jsonl", "velociti.json")},
    read=_read_all,
    expected={"rows": 8792},
    captions="none",
    settings={"frame_average": True},
    source="the table is the split `test` of huggingface.co/datasets/katha-ai-iiith/VELOCITI, written by "
    "datasets.load_dataset('katha-ai-iiith/VELOCITI')['test'].to_csv('velociti.csv'); the videos are there, too",
    licence="CC BY-NC-SA 4.0; it may never be used to tune a model",
    notes="Two captions a video, chance 50; published figures are those of each test (per_type). This is their "
    "ClassicVLE, the right caption scored higher (metrics.py; they count a tie as wrong, here it counts half). "
    "StrictVLE needs a probability for each caption, which embeddings do not give.",
)
BENCHMARKS = (
    _VELOCITI,
    dataclasses.replace(
        _VELOCITI,
        name="velociti_subset",
        title="VELOCITI Subset",
        split="test, in_subset",
        read=_read_subset,
        expected={},
        notes="150 rows of each test, for those with few resources; always to be named `VELOCITI Subset`.",
    ),
)
