"""RTime (Reversed in Time): videos of actions that mean something else backwards, with a caption for each direction.

arXiv 2412.19178. The form of test.json was read in github.com/qyr0403/Reversed-in-Time: an object of videos by number,
each with `forward_captions` (one, by a person), `reverse_captions` (one, of the video played backwards), rewritten ones
of both, and `reverse` (whether the backward video makes sense). The number of rows is not checked: the files were not
counted.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.input.annotation_files import only, read_json, records_of
from harvest_jax.input.annotation_records import Record
from harvest_jax.terminal import printable

_FILES = {"captions": ("Reversed-in-Time/test.json", "rtime/test.json", "rtime_test.json", "test.json")}
_SOURCE = (
    "test.json is in github.com/qyr0403/Reversed-in-Time, which names the address of each video at shutterstock.com; "
    "the files are called by the number in it"
)
_LICENCE = "not stated for the captions; the videos are Shutterstock's"


def _records(path: Path) -> dict[str, Record]:
    entries: dict[str, Any] = read_json(path, dict)
    records = records_of(entries.values(), str(path))
    return {
        name: Record(f"{path}, video {printable(name, 40)}", record.cells)
        for name, record in zip(entries, records, strict=True)
    }


def _read_origin(files: Mapping[str, Path]) -> list[Row]:
    return [
        Row(name, name, captions=(record.texts("forward_captions")[0],))
        for name, record in _records(only(files)).items()
    ]


def _read_reversed(files: Mapping[str, Path]) -> list[Row]:
    rows = []
    for name, record in _records(only(files)).items():
        if not isinstance(record.value("reverse"), bool):
            raise record.fault("'reverse' must be true or false")
        if record.value("reverse"):
            reversed_caption = record.texts("reverse_captions")[0]
            captions = (record.texts("forward_captions")[0],)
            rows.append(Row(name, name, captions=captions, extra={"reversed_caption": reversed_caption}))
    return rows


BENCHMARKS = (
    Benchmark(
        name="rtime_origin",
        title="RTime-Origin",
        version="1",
        task="retrieval",
        split="test, original videos",
        files=_FILES,
        read=_read_origin,
        expected={},
        captions="one",
        settings={"frame_average": True},
        source=_SOURCE,
        licence=_LICENCE,
        notes="Ordinary retrieval by the caption that a person wrote (the first of forward_captions).",
    ),
    Benchmark(
        name="rtime_hard_binary",
        title="RTime-Hard and RTime-Binary",
        version="1",
        task="reversal",
        split="test, original and reversed videos",
        files=_FILES,
        read=_read_reversed,
        expected={},
        captions="one",
        settings={},
        source=_SOURCE,
        licence=_LICENCE,
        notes="No reversed files are needed: the frames that the model sees of a clip are reversed. RTime-Hard is "
        "`retrieval`, among all clips and all clips backwards with the captions of both; RTime-Binary is `both_ways`: "
        "`video_accuracy` from a caption to one of two clips, `text_accuracy` from a clip to one of two captions, over "
        "both directions. The authors' program was not seen; others count the original video and its caption alone.",
    ),
)
