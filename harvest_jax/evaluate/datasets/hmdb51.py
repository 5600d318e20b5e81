"""HMDB51: 6,766 clips of 51 actions from films and the web; three splits of 70 training and 30 test clips a class."""

import re
from collections.abc import Mapping
from pathlib import Path

from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.input.annotation_files import read_lines
from harvest_jax.input.annotation_records import Record
from harvest_jax.input.class_names import class_text

CLASSES = (
    *("brush_hair", "cartwheel", "catch", "chew", "clap", "climb", "climb_stairs", "dive", "draw_sword", "dribble"),
    *("drink", "eat", "fall_floor", "fencing", "flic_flac", "golf", "handstand", "hit", "hug", "jump", "kick"),
    *("kick_ball", "kiss", "laugh", "pick", "pour", "pullup", "punch", "push", "pushup", "ride_bike", "ride_horse"),
    *("run", "shake_hands", "shoot_ball", "shoot_bow", "shoot_gun", "sit", "situp", "smile", "smoke", "somersault"),
    *("stand", "swing_baseball", "sword", "sword_exercise", "talk", "throw", "turn", "walk", "wave"),
)
_LINE = re.compile(r"(\S+\.avi)\s+([012])")
TEST = "2"  # 1 is training; 0 is in neither part of this split


def _read(files: Mapping[str, Path]) -> list[Row]:
    rows = []
    for name, path in files.items():
        for line in read_lines(path):
            match = _LINE.fullmatch(line)
            if match is None:
                raise Record(str(path), {}).fault(f"{line!r:.80} must be a clip (.avi) and 0, 1 or 2")
            if match[2] == TEST:
                clip = f"{name}/{match[1]}"
                rows.append(Row(clip, clip, extra={"label": class_text(name)}, where=f"{path}, {clip}"))
    return rows


def _files(split: int) -> dict[str, tuple[str, ...]]:
    return {name: (f"{name}_test_split{split}.txt",) for name in CLASSES}


BENCHMARKS = tuple(
    Benchmark(
        name=f"hmdb51_{split}",
        title=f"HMDB51, split {split}",
        version="1",
        task="zero_shot",
        split=f"test of split {split}",
        files=_files(split),
        read=_read,
        expected={"rows": 1530, "videos": 1530, "classes": 51},
        captions="none",
        settings={},
        source="test_train_splits.rar (51 files a split) and hmdb51_org.rar at serre-lab.clps.brown.edu/resource/"
        "hmdb-a-large-human-motion-database",
        licence="CC BY 4.0",
        notes="Mean of the three splits, or split 1 alone, is reported. 30 clips a class (paper); the files were not "
        "seen, their form is from mmaction2's and others' readers. Papers on zero-shot "
        "recognition report halves of the classes: --config.half_of_classes=SEED.",
        split_of="HMDB51",
    )
    for split in (1, 2, 3)
)
