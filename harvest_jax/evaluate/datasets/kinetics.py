"""Kinetics-400, -600 and -700: clips of 10 s of YouTube, each with one human action."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.evaluate.benchmarks.clip_lists import read_clip_list
from harvest_jax.input.annotation_files import read_table
from harvest_jax.input.annotation_records import Record
from harvest_jax.input.class_names import class_text, read_classes


def clip_name(youtube_id: str, start: float, end: float) -> str:
    """The name of a clip's file, without its suffix, in CVDF's copy and in the official download scripts."""
    return f"{youtube_id}_{int(start):06d}_{int(end):06d}"


def _row(record: Record) -> Row:
    name = clip_name(record.text("youtube_id"), record.seconds("time_start"), record.seconds("time_end"))
    return Row(name, name, extra={"label": class_text(record.text("label"))}, where=record.where)


def _read_table(files: Mapping[str, Path]) -> list[Row]:
    columns = ("label", "youtube_id", "time_start", "time_end")
    return [_row(record) for record in read_table(files["clips"], columns)]


def _read_list(files: Mapping[str, Path]) -> list[Row]:
    records = read_clip_list(files["clips"], read_classes(files["classes"]))
    return [
        Row(record.text("clip"), record.text("clip"), extra={"label": record.text("label")}, where=record.where)
        for record in records
    ]


_COMMON: dict[str, Any] = {
    "version": "1",
    "task": "zero_shot",
    "captions": "none",
    "settings": {},
    "licence": "CC BY 4.0 (the annotations); the videos are YouTube's",
}
_SCORES = (
    "Papers report top-1, top-5 or their mean (AVG). Sentences, ensemble, frames and crop change the score by points: "
    "the config's are ActionCLIP's 16 and mean_vector. InternVideo1 reports the test list, most others val."
)


def _benchmarks(classes: int, folder: str, rows: dict[str, int]) -> tuple[Benchmark, Benchmark]:
    """One of the official table, which names the classes, and one of a list with a file of class names."""
    name, short = f"kinetics{classes}", f"k{classes}"
    source = f"github.com/cvdfoundation/kinetics-dataset ({folder}/annotations/val.csv), which has the videos too"
    table = Benchmark(
        name=name,
        title=f"Kinetics-{classes}",
        split="val",
        files={
            "clips": (
                f"{folder}/annotations/val.csv",
                f"{name}/val.csv",
                f"{short}/val.csv",
                f"{short}_val.csv",
                f"kinetics_{classes}_val.csv",
                f"kinetics-{classes}_val.csv",
                "validate.csv",
                "val.csv",
            )
        },
        read=_read_table,
        expected={"classes": classes, **rows},
        source=source,
        notes="The file was not seen, its form is from CVDF's and others' programs: label,youtube_id,time_start,"
        f"time_end,split; some labels in quotes. Clips are called youtubeid_start_end with six digits. {_SCORES}",
        **_COMMON,
    )
    listed = Benchmark(
        name=f"{name}_list",
        title=f"Kinetics-{classes} by a list",
        split="as the list",
        files={
            "clips": (f"{short}_val.txt", f"{short}/val.txt", f"{name}_val_list_videos.txt", "val.txt", "val.list"),
            "classes": (
                f"kinetics_label_map_{short}.txt",
                f"label_map_{short}.txt",
                f"kinetics_{classes}_labels.csv",
                f"{name}_classes.txt",
                "kinetics_label_map.txt",
            ),
        },
        read=_read_list,
        expected={"classes": classes},
        source="a list that a program's authors published (path, class number), with the list of class names that they "
        "used: mmaction2's are in tools/data/kinetics of github.com/open-mmlab/mmaction2",
        notes="Which number is which class is nowhere in the list: a wrong list of names gives scores near chance, not "
        f"an error. {_SCORES}",
        **_COMMON,
    )
    return table, listed


BENCHMARKS = (
    # 19,906 clips of K400's val.csv: CVDF's arrange_by_classes.py and kinetics-dataset issue 51 (19,907 lines with the
    # header); CVDF's archive has 19,881 of them. K600's and K700's files differ between copies (issues 11, 22, 33).
    *_benchmarks(400, "400", {"rows": 19_906}),
    *_benchmarks(600, "600", {}),
    *_benchmarks(700, "700_2020", {}),
)
