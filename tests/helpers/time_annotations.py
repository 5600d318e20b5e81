"""Miniatures of the annotation files of benchmarks about the order in time, in their official forms; all invented."""

import csv
import json

from harvest_jax.evaluate.datasets.vitatecs import ASPECTS


def write_table(path, columns, *rows):
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


def vitatecs(folder, **changes):
    """Two pairs of each aspect; `changes` are fields of the first line of each file."""
    data = folder / "data"
    data.mkdir(parents=True)
    for aspect in ASPECTS:
        first = {
            "src_dataset": "MSRVTT",
            "video_name": "video7.mp4",
            "caption": "a cat climbs up a lamp",
            "counterfactual": "a cat climbs down a lamp",
            "aspect": aspect,
        }
        second = first | {
            "src_dataset": "VATEX",
            "video_name": "q-Y_000001_000011.mp4",
            "caption": "rain \u201cstarts\u201d",
        }
        lines = [json.dumps(first | changes), json.dumps(second)]
        (data / f"{aspect}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def rtime_video(reverse=True, **changes):
    return {
        "temporal": True,
        "reverse": reverse,
        "forward_captions": ["a boat leaves the lake"],
        "reverse_captions": ["a boat comes to the lake"] if reverse else [],
        "forward_rewrites": ["away goes a boat"],
        "reverse_rewrites": ["here comes a boat"] if reverse else [],
        "url": "https://videos.example/11",
    } | changes


def rtime(folder, videos=None):
    path = folder / "test.json"
    videos = {"11": rtime_video(), "12": rtime_video(), "13": rtime_video(reverse=False)} if videos is None else videos
    path.write_text(json.dumps(videos, indent=4), "utf-8")
    return path


def ssv2_label(folder):
    path = folder / "ssv2_ret_label_val_small.json"
    entries = [
        {"video": ["5.webm"], "caption": "unrolling a red carpet"},
        {"video": "6.webm", "caption": "rolling up a carpet"},
    ]
    path.write_text(json.dumps(entries), "utf-8")
    return path


def ssv2_template(folder):
    path = folder / "ssv2_ret_template_val_small.json"
    entries = [
        {"video": ["1.webm", "2.webm", "3.webm"], "caption": "Unrolling [something]"},
        {"video": ["4.webm", "5.webm"], "caption": "Rolling [something] up [something]"},
    ]
    path.write_text(json.dumps(entries), "utf-8")
    return path


CHIRALITY = ("id", "label", "template", "chiral_triplet_id", "chiral_label")


def chirality(folder, *more):
    """Videos 1 and 2 unroll and roll up, 2 is also in a pair with 3; one row is there twice."""
    rows = [
        (1, "unrolling a mat", "Unrolling [something]", "ab12", 1.0),
        (2, "rolling up a mat", "Rolling up [something]", "ab12", 0.0),
        (2, "rolling up a mat", "Rolling up [something]", "cd34", 1.0),
        (3, "dropping a mat", "Dropping [something]", "cd34", 0.0),
        (1, "unrolling a mat", "Unrolling [something]", "ab12", 1.0),
    ]
    return write_table(folder / "cia-ssv2-validation.csv", CHIRALITY, *rows, *more)


_SIDES = (f"{side}_{part}" for side in ("pos", "neg") for part in ("vid", "start", "end", "cap"))
VINOGROUND = ("index", "major", "minor", *_SIDES)


def vinoground(folder, *more):
    rows = [
        (0, "action", "", "aa", 5, 15, "she sits, then sings", "bb", 1, 2, "she sings, then sits"),
        (1, "object", "spatial;cyclical;", "cc", 0, 9, "tea before milk", "cc", 9, 18, "milk before tea"),
    ]
    return write_table(folder / "vinoground.csv", VINOGROUND, *rows, *more)


VELOCITI = ("video_id", "test_name", "event", "pos", "neg", "in_subset")
VELOCITI_ROWS = (
    ("v_a_seg_0_10.mp4", "chrono", "(Ev1, Ev3)", "he nods before he leaves", "he leaves before he nods", True),
    ("v_a_seg_0_10.mp4", "agent_bind", "Ev2", "the man in blue nods", "the man in red nods", False),
    ("v_b_seg_5_15.mp4", "chrono", "(Ev1, Ev2)", "a door, then a dog", "a dog, then a door", False),
)


def velociti(folder, form="csv"):
    path = folder / f"velociti.{form}"
    if form == "csv":
        return write_table(path, VELOCITI, *VELOCITI_ROWS)
    records = [dict(zip(VELOCITI, row, strict=True)) for row in VELOCITI_ROWS]
    text = json.dumps(records) if form == "json" else "".join(json.dumps(one) + "\n" for one in records)
    path.write_text(text, "utf-8")
    return path


NEGBENCH = (
    "correct_answer",
    "caption_0",
    "caption_1",
    "caption_2",
    "caption_3",
    "correct_answer_template",
    "image_path",
)


def negbench(folder, *more):
    rows = [
        (0, "a pan and no lid", "a lid and no pan", "a lid", "no pan", "hybrid", "/disk/of/them/TestVideo/video9.mp4"),
        (2, "a", "b", "c, quoted", "d", "negative", "/disk/of/them/TestVideo/video8.mp4"),
    ]
    return write_table(folder / "msr_vtt_mcq_rephrased_llama.csv", NEGBENCH, *rows, *more)


TIME_MINIATURES = {
    "vitatecs": vitatecs,
    "rtime_origin": rtime,
    "rtime_hard_binary": rtime,
    "ssv2_label": ssv2_label,
    "ssv2_template": ssv2_template,
    "chirality_ssv2": chirality,
    "vinoground": vinoground,
    "velociti": velociti,
    "velociti_subset": velociti,
    "negbench_msrvtt_mcq": negbench,
}
