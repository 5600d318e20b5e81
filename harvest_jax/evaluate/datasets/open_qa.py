"""MSRVTT-QA and MSVD-QA: open questions that were generated from the videos' captions."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harvest_jax.errors import DataError
from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.evaluate.question_rows import text_or_number
from harvest_jax.input.annotation_files import read_json_rows, read_text
from harvest_jax.input.annotation_records import Record
from harvest_jax.terminal import printable


def _read(files: Mapping[str, Path], video_of: Callable[[Record], str]) -> list[Row]:
    """The questions of a JSON list (the official form) or JSON lines (ClipBERT's and ALPRO's)."""
    count: Counter[str] = Counter()
    rows = []
    for record in read_json_rows(files["questions"]):
        video = video_of(record)
        count[video] += 1
        own = "id" in record.cells or "question_id" in record.cells
        name = text_or_number(record, "id", "question_id") if own else f"{video}#{count[video]}"
        extra = {"question": record.text("question"), "answer": record.text("answer")}
        rows.append(Row(name, video, extra=extra, where=record.where))
    return rows


def _named(record: Record, prefix: str) -> str:
    """The clip's name: 7010 and "video7010" are the same."""
    name = text_or_number(record, "video_id", "video")
    return f"{prefix}{name}" if name.isdecimal() else name


def _read_msrvtt(files: Mapping[str, Path]) -> list[Row]:
    return _read(files, lambda record: _named(record, "video"))


def read_mapping(path: Path) -> dict[str, str]:
    """MSVD's names of clips by the names in MSVD-QA, out of youtube_mapping.txt (`-4wsuPCjDBc_5_15 vid1` a line).

    Raises:
      DataError: a line is not a pair, or a name is there twice.
    """
    names: dict[str, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or not words[1].startswith("vid"):
            raise DataError(f"{path}, line {number}: must be a clip's name and vidN, is {printable(line, 80)!r}")
        if words[1] in names:
            raise DataError(f"{path}, line {number}: {printable(words[1], 40)} is there twice")
        names[words[1]] = words[0]
    return names


def _read_msvd(files: Mapping[str, Path]) -> list[Row]:
    names = read_mapping(files["names"]) if "names" in files else None

    def video_of(record: Record) -> str:
        name = _named(record, "vid")
        if names is None or not name.startswith("vid"):
            return name
        if name not in names:
            raise record.fault(f"{printable(name, 40)} is not in {files['names']}")
        return names[name]

    return _read(files, video_of)


_COMMON: dict[str, Any] = {
    "version": "1",
    "task": "videoqa",
    "split": "test",
    "captions": "none",
    "licence": "not stated",
}
_FORM = (
    "[{id, video_id, question, answer}] (form from the authors' and others' readers; the file was not seen). The "
    "questions were made by a program out of captions, and have its mistakes. "
)

BENCHMARKS = (
    Benchmark(
        name="msrvtt_qa",
        title="MSRVTT-QA",
        files={
            "questions": ("MSRVTT-QA/test_qa.json", "msrvtt_qa_test.json", "test_qa.json", "msrvtt_qa/test.jsonl"),
            "answers": (
                "MSRVTT-QA/train_qa.json",
                "msrvtt_qa_train.json",
                "train_qa.json",
                "msrvtt_qa/train_ans2label.json",
                "msrvtt_qa_answer_list.json",
            ),
        },
        read=_read_msrvtt,
        expected={"rows": 72_821},
        settings={"max_answers": 1500},
        source="test_qa.json and train_qa.json are linked in the README.md of github.com/xudejing/"
        "video-question-answering; the videos are MSR-VTT's",
        notes=_FORM + "Candidates: the 1,500 most frequent answers of the training questions, as ClipBERT and ALPRO "
        "(which answers of equal frequency are the last ones is our choice); the dataset's authors took 1,000.",
        **_COMMON,
    ),
    Benchmark(
        name="msvd_qa",
        title="MSVD-QA",
        files={
            "questions": ("MSVD-QA/test_qa.json", "msvd_qa_test.json", "test_qa.json"),
            "answers": ("MSVD-QA/train_qa.json", "msvd_qa_train.json", "train_qa.json"),
            "names": ("youtube_mapping.txt",),
        },
        read=_read_msvd,
        expected={"rows": 13_157},
        settings={"max_answers": 1000},
        source="test_qa.json, train_qa.json and youtube_mapping.txt are linked in the README.md of github.com/xudejing/"
        "video-question-answering; the videos are MSVD's (YouTubeClips.tar)",
        notes=_FORM + "vidN are MSVD's clips by youtube_mapping.txt. Candidates: the 1,000 most frequent answers of "
        "the training questions, as the dataset's authors (which answers of equal frequency are the last ones is our "
        "choice). VIOLET's figures are over the 11,983 questions whose answer is a candidate.",
        **_COMMON,
    ),
)
