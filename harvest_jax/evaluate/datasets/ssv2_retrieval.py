"""SSv2-label and SSv2-template: retrieval of Something-Something V2 by sentences about the motion (Singularity).

arXiv 2206.03428. The form of the files, a list of {"video": [names], "caption"}, is that of Singularity's reader
(jayleicn/singularity, dataset/utils.py and caption_dataset.py) and of a description with examples in a repository that
uses them; the files were not seen. In SSv2-template a caption has 12 right videos.
"""

from collections.abc import Mapping
from pathlib import Path

from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.evaluate.benchmarks.caption_lists import texts_of
from harvest_jax.input.annotation_files import only, read_records

_SOURCE = (
    "the list is in anno_downstream.tar.gz, linked from README.md of github.com/jayleicn/singularity; the videos are "
    "those of Something-Something V2, from developer.qualcomm.com"
)
_LICENCE = "Something-Something V2 is for research only, by agreement with Qualcomm"


def without_brackets(caption: str) -> str:
    """A caption without the brackets around its placeholders: "Folding [something]" -> "Folding something"."""
    return caption.replace("[", "").replace("]", "")


def _read(files: Mapping[str, Path]) -> list[Row]:
    rows = []
    for record in read_records(only(files)):
        caption = without_brackets(record.text("caption"))
        rows += [Row(video, video, captions=(caption,), where=record.where) for video in texts_of(record, "video")]
    return rows


BENCHMARKS = tuple(
    Benchmark(
        name=f"ssv2_{kind}",
        title=f"SSv2-{kind}",
        version="1",
        task="retrieval",
        split="part of the validation set chosen by Singularity",
        files={"captions": (f"ssv2_ret_{kind}_val_small.json",)},
        read=_read,
        expected={"rows": 2088, "videos": 2088, "captions": 2088},
        captions="one",
        settings={"frame_average": True, "positives": "distinct_text"},
        source=_SOURCE,
        licence=_LICENCE,
        notes=f"{notes} Brackets around [something] are removed (our choice; Singularity keeps them). Conventions: "
        "Singularity 4 frames, UMT 12 frames and 25 tokens.",
    )
    for kind, notes in (
        ("label", "One row a video; rows with the same caption are right answers to each other's."),
        (
            "template",
            "One row a video, 12 rows for each of 174 captions: all 12 videos are right, and Singularity counts the "
            "best-ranked of them (tasks/retrieval_utils.py, itm_eval).",
        ),
    )
)
