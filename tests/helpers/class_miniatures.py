"""Small annotation files in the form of the official ones of classification benchmarks; the clips are invented.

Each function writes the files of one benchmark into a folder and returns the folder. `CLASS_MINIATURES` has them by the
benchmark's name.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path

from harvest_jax.evaluate.datasets.hmdb51 import CLASSES
from tests.helpers.question_miniatures import written

ACTIONS = ("air drumming", "abseiling", "zumba", "hurling (sport)")


def kinetics(folder: Path, name: str = "val.csv") -> Path:
    """Two clips a class, labels of two words in quotes as in the official file."""
    lines = ["label,youtube_id,time_start,time_end,split,is_cc"]
    for n in range(8):
        label = ACTIONS[n % 4]
        quoted = f'"{label}"' if " " in label else label
        lines.append(f"{quoted},-x{n}InventedI,{n * 10},{n * 10 + 10},val,0")
    written(folder / name, "".join(f"{line}\n" for line in lines))
    return folder


def kinetics_list(folder: Path, name: str = "val.txt") -> Path:
    """The clips of `kinetics` by numbers; the class names are not in alphabetical order."""
    lines = [f"val/{ACTIONS[n % 4]}/-x{n}InventedI_{n * 10:06d}_{n * 10 + 10:06d}.mp4 {n % 4}" for n in range(8)]
    written(folder / name, "".join(f"{line}\n" for line in lines))
    written(folder / "kinetics_label_map.txt", "".join(f"{action}\n" for action in ACTIONS))
    return folder


def ucf101(folder: Path, split: int = 1) -> Path:
    """Three classes; the clips of HandstandPushups are written HandStand in the official lists too."""
    lines = [
        f"{kind}/v_{clip}_g0{group}_c01.avi"
        for kind, clip in (
            ("ApplyEyeMakeup", "ApplyEyeMakeup"),
            ("HandstandPushups", "HandStandPushups"),
            ("YoYo", "YoYo"),
        )
        for group in (1, 2)
    ]
    written(folder / "ucfTrainTestlist" / f"testlist0{split}.txt", "".join(f"{line}\r\n" for line in lines))
    return folder


def hmdb51(folder: Path, split: int = 1) -> Path:
    """One training and one test clip a class, and one that is in neither."""
    for number, name in enumerate(CLASSES):
        lines = [f"A_film!_#{number}_{name}_f_cm_np1_le_med_{code}.avi {code} " for code in (1, 2, 0)]
        path = folder / "testTrainMulti_7030_splits" / f"{name}_test_split{split}.txt"
        written(path, "".join(f"{line}\n" for line in lines))
    return folder


def ssv2(folder: Path) -> Path:
    """Four clips of two classes."""
    templates = ("Brewing [something] in [something]", "Turning [something] upside down, so it falls")
    rows = [
        {
            "id": str(900 + n),
            "label": "turning a kettle",
            "template": templates[n % 2],
            "placeholders": ["a kettle"],
        }
        for n in range(4)
    ]
    labels = {template.replace("[", "").replace("]", ""): str(1 - n) for n, template in enumerate(templates)}
    written(folder / "something-something-v2-validation.json", json.dumps(rows))
    written(folder / "something-something-v2-labels.json", json.dumps(labels))
    return folder


def moments(folder: Path) -> Path:
    """Four clips of two classes."""
    kinds = ("adult+male+singing", "brewing")
    clips = [f"{kinds[n % 2]}/yt-Invented{n}_{n}.mp4,{kinds[n % 2]},{n},0" for n in range(4)]
    written(folder / "validationSet.csv", "".join(f"{clip}\n" for clip in clips))
    written(folder / "moments_categories.txt", "".join(f"{kind},{n}\n" for n, kind in enumerate(kinds)))
    return folder


CLASS_MINIATURES: dict[str, Callable[..., Path]] = {
    **{f"kinetics{classes}": kinetics for classes in (400, 600, 700)},
    **{f"kinetics{classes}_list": kinetics_list for classes in (400, 600, 700)},
    **{f"ucf101_{split}": functools.partial(ucf101, split=split) for split in (1, 2, 3)},
    **{f"hmdb51_{split}": functools.partial(hmdb51, split=split) for split in (1, 2, 3)},
    "ssv2": ssv2,
    "moments": moments,
}
