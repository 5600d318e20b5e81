"""MSRVTT-MC: five captions for each of MSR-VTT's 2,990 test videos, one of them its own."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.evaluate.question_rows import choice
from harvest_jax.input.annotation_files import only, read_json_rows
from harvest_jax.input.annotation_records import Record


def _row(record: Record) -> Row:
    clip, options = ("clip_name", "options") if "clip_name" in record.cells else ("video", "caption")
    video = record.text(clip)
    return Row(PurePosixPath(video).stem, video, extra=choice(record, record.texts(options)), where=record.where)


def _read(files: Mapping[str, Path]) -> list[Row]:
    """Both forms: JSON lines of ClipBERT and InternVideo1, and the JSON list of VindLU, UMT and their successors."""
    return [_row(record) for record in read_json_rows(only(files))]


BENCHMARKS = (
    Benchmark(
        name="msrvtt_mc",
        title="MSRVTT-MC",
        version="1",
        task="multiple_choice",
        split="test (the 2,990 videos of MSR-VTT's full test split)",
        files={"questions": ("msrvtt_mc_test.jsonl", "msrvtt_mc_test.json", "msrvtt_mc.json")},
        read=_read,
        expected={"rows": 2990, "videos": 2990},
        captions="none",
        settings={},
        source="msrvtt_mc_test.jsonl comes with the annotations of github.com/jayleicn/ClipBERT, msrvtt_mc_test.json "
        "with those of github.com/klauscc/VindLU; the videos are MSR-VTT's",
        licence="not stated",
        notes="{clip_name, options, answer} or {video, caption, answer}, answers from 0 (forms from InternVideo1's and "
        "UMT's readers; the files were not seen, and 2,990 is from memory of ClipBERT). UMT and ViCLIP mix in the "
        "scores of a cross-encoder and use a model fine-tuned on MSR-VTT retrieval: such scores are no zero-shot "
        "scores of an embedding model.",
    ),
)
