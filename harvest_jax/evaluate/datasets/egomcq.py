"""EgoMCQ: a sentence and five clips of Ego4D, one of which it describes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harvest_jax.errors import DataError
from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.evaluate.question_rows import OPTIONS
from harvest_jax.input.annotation_files import only, read_json
from harvest_jax.input.annotation_records import Record
from harvest_jax.terminal import printable


def _record(value: Any, where: str) -> Record:
    if not isinstance(value, dict):
        raise DataError(f"{where}: must be an object")
    return Record(where, value)


def _rows(record: Record, name: str) -> list[Row]:
    """The rows of one question, one for each clip; see `tasks.clip_choice`."""
    choices = record.value("choices")
    if not isinstance(choices, dict) or sorted(choices) != [str(number) for number in range(OPTIONS)]:
        raise record.fault(f"'choices' must be an object with the keys 0 to {OPTIONS - 1}")
    clips = [_record(choices[str(number)], f"{record.where}, choice {number}") for number in range(OPTIONS)]
    text = _record(record.value("query"), f"{record.where}, query").text("clip_text")
    answer = record.whole("answer", 0, OPTIONS - 1)
    # The file's `types` (1 and 2) are named one way and the other by EgoVLP's programs, so the kind is read from the
    # clips themselves.
    kind = "intra" if len({clip.text("video_uid") for clip in clips}) == 1 else "inter"
    rows = []
    for number, clip in enumerate(clips):
        start, end = max(clip.number("clip_start"), 0.0), clip.seconds("clip_end")  # EgoVLP cuts at 0 too
        if end <= start:
            raise clip.fault(f"the clip ends at {end:g} s, not after its start at {start:g} s")
        extra = {"question_id": name, "text": text, "answer": int(number == answer), "type": kind}
        rows.append(Row(f"{name}/{number}", clip.text("video_uid"), start, end, extra=extra, where=clip.where))
    return rows


def _read(files: Mapping[str, Path]) -> list[Row]:
    path = only(files)
    questions = read_json(path, dict)
    if not questions:
        raise DataError(f"{path} has no questions")
    return [
        row
        for name, value in questions.items()
        for row in _rows(_record(value, f"{path}, question {printable(name, 40)}"), name)
    ]


BENCHMARKS = (
    Benchmark(
        name="egomcq",
        title="EgoMCQ",
        version="1",
        task="clip_choice",
        split="all questions",
        files={"questions": ("egomcq.json",)},
        read=_read,
        expected={},
        captions="none",
        settings={},
        source="egomcq.json is linked in the readme of github.com/showlab/EgoVLP, the videos are Ego4D's "
        "(ego4d-data.org, by agreement)",
        licence="Ego4D's agreement; the questions MIT, as EgoVLP's code",
        notes="About 39,000 questions (paper); the file was not seen, its form is from EgoVLP's reader: an object of "
        "questions {answer 0-4, query, choices 0-4, types}, each clip with video_uid, clip_start, clip_end and "
        "clip_text. A question is five rows. Spans are in the whole source videos (video_uid.mp4), not in the pieces "
        "of 600 s that EgoVLP cuts. Report intra (all clips of one video) and inter apart. Sentences begin with #C C.",
    ),
)
