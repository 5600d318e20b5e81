"""UCF101: 13,320 clips of 101 actions; three splits."""

import re
from collections.abc import Mapping
from pathlib import Path

from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.input.annotation_files import only, read_lines
from harvest_jax.input.annotation_records import Record

_CLIP = re.compile(r"([A-Za-z]+)/(v_\w+\.avi)(?:\s+\d+)?")  # in training lists the class number follows
_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")
# Where the capitals are not between the words. Folder and class list have Handstand, the clips' own names HandStand,
# and CLIP's class names (github.com/openai/CLIP, data/prompts.md) have three words.
WRITTEN = {"HandstandPushups": "Hand Stand Pushups"}


def class_words(name: str) -> str:
    """A class name as people write it: "ApplyEyeMakeup" is "Apply Eye Makeup". The 101 are CLIP's class names."""
    return WRITTEN.get(name) or " ".join(_CAPITAL.split(name))


def _read(files: Mapping[str, Path]) -> list[Row]:
    path = only(files)
    rows = []
    for line in read_lines(path):
        record = Record(f"{path}", {"line": line})
        match = _CLIP.fullmatch(line)
        if match is None:
            raise record.fault(f"{line!r:.80} must be a class and a clip, as Archery/v_Archery_g01_c01.avi")
        name = f"{match[1]}/{match[2]}"
        rows.append(Row(name, name, extra={"label": class_words(match[1])}, where=f"{path}, {name}"))
    return rows


BENCHMARKS = tuple(
    Benchmark(
        name=f"ucf101_{split}",
        title=f"UCF101, split {split}",
        version="1",
        task="zero_shot",
        split=f"test of split {split}",
        files={"clips": (f"testlist0{split}.txt",)},
        read=_read,
        expected={"rows": rows, "videos": rows, "classes": 101},
        captions="none",
        settings={"prompts": "ucf_48"},
        source="UCF101TrainTestSplits-RecognitionTask.zip and UCF101.rar at www.crcv.ucf.edu/data/UCF101.php",
        licence="not stated; the videos are YouTube's",
        notes="Mean of the three splits, or split 1 alone, is reported. Counts from the dataset's page as remembered; "
        "with the training lists each split has all 13,320 clips. The files were not seen. CLIP's 48 sentences and "
        "class names. Papers on zero-shot recognition report halves of the classes: --config.half_of_classes=SEED.",
        split_of="UCF101",
    )
    for split, rows in ((1, 3783), (2, 3734), (3, 3696))
)
