"""Vinoground: 500 groups of two short videos and two captions of the same words, with events in another order.

arXiv 2410.02763. Columns and categories as in the authors' programs (github.com/Vinoground/Vinoground, get_score_all.py
and eval/videoclip.py) and in a description of the file by others; the file was not seen.
"""

from collections.abc import Mapping
from pathlib import Path

from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.input.annotation_files import only, read_table

_GROUPS = 500


def _read(files: Mapping[str, Path]) -> list[Row]:
    rows = []
    for record in read_table(only(files), ("index", "major", "minor", "pos_cap", "neg_cap")):
        group = record.whole("index", 0, _GROUPS - 1)
        minor = [name.strip() for name in str(record.value("minor")).split(";") if name.strip()]
        extra = {"group": str(group), "type": ";".join([record.text("major"), *minor])}
        for side in ("pos", "neg"):
            name = f"{group}_{side}"
            captions = (record.text(f"{side}_cap"),)
            video = f"vinoground_videos/{name}.mp4"
            rows.append(Row(name, video, captions=captions, extra=extra, where=record.where))
    return rows


BENCHMARKS = (
    Benchmark(
        name="vinoground",
        title="Vinoground",
        version="1",
        task="pairs",
        split="all (there is no other)",
        files={"groups": ("vinoground.csv",)},
        read=_read,
        expected={"rows": 2 * _GROUPS, "videos": 2 * _GROUPS, "captions": 2 * _GROUPS},
        captions="one",
        settings={},
        source="vinoground.csv and vinoground_videos.zip are at huggingface.co/datasets/HanSolo9682/Vinoground",
        licence="not stated in the repository of the programs",
        notes="Text, video and group score as in eval/videoclip.py, strictly greater; chance 25, 25, 16.67. Published "
        "scores of chat models answer questions instead (vinoground_textscore.json, vinoground_videoscore.json).",
    ),
)
