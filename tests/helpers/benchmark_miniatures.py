"""Small annotation files in the form of each retrieval benchmark's official ones; all names and sentences are invented.

Every function writes the files of one benchmark into a folder and returns the folder.
"""

import csv
import json
import pickle
from pathlib import Path

SENTENCES = (
    "a kite rises over a red barn",
    "two goats look through a fence",
    "someone pours tea into a blue cup",
    "a tram turns round the corner",
    "an old man mends a net",
    "rain falls on a tin roof",
)


def sentences(video: int, count: int) -> list[str]:
    """Texts of one video; no two videos share one."""
    return [f"{SENTENCES[(video + n) % len(SENTENCES)]}, take {video} {n}" for n in range(count)]


def write_json(path: Path, value: object) -> Path:
    """A JSON file in one line, as most official ones are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_lines(path: Path, lines: list[str]) -> Path:
    """A text file with one entry a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def msrvtt_1ka(folder: Path, videos: int = 4) -> Path:
    """JSFusion's csv file; the last row repeats the caption of the first."""
    with (folder / "MSRVTT_JSFUSION_test.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["key", "vid_key", "video_id", "sentence"])
        for n in range(videos):
            caption = sentences(0 if n == videos - 1 else n, 1)[0]
            writer.writerow([f"ret{n}", f"msr{9770 + n}", f"video{9770 + n}", caption])
    return folder


def msrvtt_full(folder: Path, videos: int = 3) -> Path:
    """VindLU's list of the test videos."""
    entries = [{"video": f"video{7010 + n}.mp4", "caption": sentences(n, 20)} for n in range(videos)]
    write_json(folder / "msrvtt_caption_test.json", entries)
    return folder


def msrvtt_challenge(videos: list[int], captions: int = 2) -> dict[str, object]:
    """The challenge's form: videos, and sentences in any order."""
    return {
        "info": {"description": "invented", "year": "2016", "version": "1.0"},
        "videos": [
            {"category": 9, "url": "https://kites.example", "video_id": f"video{n}", "start time": 1.0, "end time": 9.0}
            | {"split": "test" if n >= 7010 else "train", "id": n}
            for n in videos
        ],
        "sentences": [
            {"caption": text, "video_id": f"video{n}", "sen_id": 100 * n + take}
            for take in range(captions)
            for n in reversed(videos)
            for text in [sentences(n, captions)[take]]
        ],
    }


def msvd(folder: Path, videos: int = 3) -> Path:
    """VindLU's list; one caption is shared by all videos, and ids begin with "-" and hold "_"."""
    entries = [
        {"video": f"-{n}kites_{n}A_{n}_{n + 9}.avi", "caption": [*sentences(n, 3 + n), "a kite flies."]}
        for n in range(videos)
    ]
    write_json(folder / "msvd_caption_test.json", entries)
    return folder


def msvd_pickle(folder: Path, videos: int = 3) -> Path:
    """collaborative-experts' pickle of all splits, and the list of the test videos."""
    names = [f"-{n}kites_{n}A_{n}_{n + 9}" for n in range(videos)]
    words = {name: [text.split() for text in sentences(n, 3)] for n, name in enumerate([*names, "train_0_9"])}
    (folder / "raw-captions.pkl").write_bytes(pickle.dumps(words, protocol=2))
    write_lines(folder / "test_list.txt", names)
    return folder


def lsmdc(folder: Path, videos: int = 4) -> Path:
    """The challenge's file: tabs, no header, quotes that are letters, ids with dots."""
    rows = []
    for n in range(videos):
        clip = f"000{n}_A_Film_00.0{n}.01.100-00.0{n}.04.250"
        times = [f"00.0{n}.01.100", f"00.0{n}.04.250", f"00.0{n}.00.900", f"00.0{n}.04.500"]
        text = f'"SOMEONE says no, {sentences(n, 1)[0]}' if n % 2 else f'SOMEONE\'s "friend" sees {sentences(n, 1)[0]}.'
        rows.append("\t".join([clip, *times, text]))
    write_lines(folder / "LSMDC16_challenge_1000_publictect.csv", rows)
    return folder


def didemo(folder: Path, videos: int = 4) -> Path:
    """Descriptions of one video more than the list has, mixed; names end in "", ".mpg", ".mov", ".wmv"."""
    names = [f"1{n}@N0{n}_20{n}_ab{n}" + (".", ".mpg", ".MOV", ".wmv")[n % 4] for n in range(videos + 1)]
    data = [
        {
            "num_segments": 6,
            "description": sentences(n, 2)[take],
            "dl_link": f"https://kites.example/{n}",
            "times": [[take, take], [take, take + 1], [0, 0], [take, take]],
            "video": name,
            "annotation_id": 10 * take + n,
        }
        for take in range(2)
        for n, name in enumerate(names)
    ]
    write_json(folder / "test_data.json", data)
    write_lines(folder / "test_list.txt", names[:videos])
    return folder


def activitynet(folder: Path, videos: int = 3) -> Path:
    """Sentences with spaces around them and their times; those of the first video are not in the order of time."""
    entries = {
        f"v_{n}kites-{n}_ab"[:13]: {
            "duration": 60.5 + n,
            "timestamps": [[20, 60.5], [0.28, 20.1]] if n == 0 else [[0, 40.5], [0, 10]],
            "sentences": [f" {text} " for text in sentences(n, 2)],
        }
        for n in range(videos)
    }
    write_json(folder / "val_1.json", entries)
    return folder


def vatex(folder: Path, videos: int = 3) -> Path:
    """The validation file with one video more than the list has."""
    names = [f"-kites_{n}-ab_00000{n}_00001{n}" for n in range(videos + 1)]
    data = [
        {"videoID": name, "enCap": sentences(n, 10), "chCap": [f"风筝{n}{take}" for take in range(10)]}
        for n, name in enumerate(names)
    ]
    write_json(folder / "vatex_validation_v1.0.json", data)
    write_lines(folder / "test_list.txt", names[:videos])
    return folder


RETRIEVAL = {
    "msrvtt_1ka": msrvtt_1ka,
    "msrvtt_full": msrvtt_full,
    "msvd": msvd,
    "lsmdc": lsmdc,
    "didemo": didemo,
    "didemo_31s": didemo,
    "activitynet": activitynet,
    "activitynet_time_order": activitynet,
    "vatex": vatex,
}
