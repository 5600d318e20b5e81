"""Chirality in Action: pairs of opposite actions of Something-Something V2; which of the two does a video show?

arXiv 2509.08502. The columns are those that the authors' programs read (bpiyush/TARA, evals/cia.py); the file was not
seen, so that the number of rows is not checked.
"""

from collections.abc import Mapping
from pathlib import Path

from harvest_jax.errors import DataError
from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.evaluate.datasets.ssv2_retrieval import without_brackets
from harvest_jax.input.annotation_files import only, read_table
from harvest_jax.terminal import printable


def _read(files: Mapping[str, Path]) -> list[Row]:
    path = only(files)
    texts: dict[str, dict[bool, str]] = {}  # of a pair: its forward action (True) and its opposite
    shown: dict[tuple[str, str], bool] = {}  # (pair, video): the action; a video may be in several pairs
    for record in read_table(path, ("id", "chiral_triplet_id", "chiral_label", "template")):
        pair, video, label = record.text("chiral_triplet_id"), record.text("id"), record.number("chiral_label")
        if label not in (0, 1):
            raise record.fault(f"'chiral_label' must be 0 or 1, is {label:g}")
        if shown.setdefault((pair, video), label == 1) != (label == 1):
            raise record.fault(f"video {printable(video, 40)} shows both actions of pair {printable(pair, 40)}")
        text = without_brackets(record.text("template"))
        if texts.setdefault(pair, {}).setdefault(label == 1, text) != text:
            raise record.fault(f"pair {printable(pair, 40)} has two sentences for one action: {printable(text, 80)!r}")
    single = next((pair for pair, both in texts.items() if len(both) < 2), None)
    if single is not None:
        raise DataError(f"{path}: pair {printable(single, 40)} has one action alone")
    rows = []
    for (pair, video), forward in shown.items():
        options = [texts[pair][True], texts[pair][False]]
        extra = {"options": options, "answer": 0 if forward else 1, "type": " / ".join(options)}
        rows.append(Row(f"{pair}-{video}", video, extra=extra))
    return rows


BENCHMARKS = (
    Benchmark(
        name="chirality_ssv2",
        title="Chirality in Action, Something-Something V2",
        version="1",
        task="multiple_choice",
        split="validation",
        files={"pairs": ("cia-ssv2-validation.csv",)},
        read=_read,
        expected={},
        captions="none",
        settings={"frame_average": True},
        source="cia-ssv2-validation.csv is at huggingface.co/datasets/bpiyush/chirality-in-action; the videos are "
        "those of Something-Something V2, from developer.qualcomm.com",
        licence="not stated for the pairs; Something-Something V2 is for research only, by agreement with Qualcomm",
        notes="Zero-shot: a video chooses between the sentences of both actions, as in the pair-wise video-to-text "
        "figure of TARA (arXiv 2512.13511). The paper itself trains a linear probe for each pair. The parts from "
        "EPIC-Kitchens and Charades are left out: their sentences are not the same for all videos of an action.",
    ),
)
