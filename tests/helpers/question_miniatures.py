"""Small annotation files in the form of the official ones of benchmarks with questions; all sentences are invented.

Each function writes the files of one benchmark into a folder and returns the folder. `QUESTION_MINIATURES` has them by
the benchmark's name.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

THINGS = ("kite", "goat", "tram", "kettle", "ladder")


def written(path: Path, text: str) -> Path:
    """A UTF-8 file with its line ends as given; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def table(rows: Sequence[Sequence[object]], end: str = "\n") -> str:
    """Lines of cells with tabs between them."""
    return "".join("\t".join(map(str, row)) + end for row in rows)


def options(number: int) -> list[str]:
    """Five sentences that differ from each other and between questions."""
    return [f'a {thing} moves, take {number} of "{thing}s"' for thing in THINGS]


def msrvtt_mc(folder: Path, count: int = 6) -> Path:
    """ClipBERT's form."""
    rows = [
        {"qid": n, "clip_name": f"video{7010 + n}", "options": options(n), "answer": n % 5, "extra": 1}
        for n in range(count)
    ]
    written(folder / "msrvtt_mc_test.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return folder


def msrvtt_mc_list(folder: Path, count: int = 6) -> Path:
    """VindLU's form of the same questions."""
    rows = [{"video": f"video{7010 + n}.mp4", "caption": options(n), "answer": n % 5} for n in range(count)]
    written(folder / "msrvtt_mc_test.json", json.dumps(rows))
    return folder


def lsmdc_mc(folder: Path, count: int = 4) -> Path:
    """With quotes that are letters; no answer is 5, and the last two questions are about one clip."""
    rows = []
    for n in range(count):
        film = f"90{min(n, count - 2):02d}_A_FILM_00.0{min(n, count - 2)}"
        times = [f"00.0{n}.01.000", f"00.0{n}.03.500", f"00.0{n}.00.900", f"00.0{n}.03.600"]
        texts = [f'SOMEONE holds a {thing}, "scene {n}.' for thing in THINGS]
        rows.append([f"{film}.01.000-00.03.500", *times, *texts, n % 4 + 1])
    written(folder / "LSMDC16_multiple_choice_test_randomized.csv", table(rows))
    return folder


def egomcq(folder: Path, count: int = 4) -> Path:
    """Even questions have five clips of one video, odd ones of five."""

    def clip(question: int, number: int) -> dict[str, object]:
        return {
            "video_uid": f"uid-{question}" if question % 2 == 0 else f"uid-{question}-{number}",
            "clip_start": number * 10.0 - 0.25,
            "clip_end": number * 10.0 + 1.5,
            "clip_text": f"#C C lifts a {THINGS[number]}",
            "tag_verb": "[93]",
            "tag_noun": "[1, 2]",
        }

    questions = {
        str(n): {
            "answer": n % 5,
            "types": 2 - n % 2,
            "query": clip(n, n % 5),
            "choices": {str(number): clip(n, number) for number in range(5)},
        }
        for n in range(count)
    }
    written(folder / "egomcq.json", json.dumps(questions))
    return folder


def nextqa(folder: Path, count: int = 8) -> Path:
    """Two questions a video, so that each `qid` is there for several videos; one of each type."""
    lines = ["video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4"]
    for n, kind in zip(range(count), ("CW", "CH", "TN", "TP", "TC", "DC", "DL", "DO"), strict=True):
        words = ",".join(f"take the {thing}" for thing in THINGS)
        lines.append(f'{40100 + n // 2},369,640,480,"what happens, in the end",{n % 5},{n % 2},{kind},{words}')
    written(folder / "nextqa" / "val.csv", "".join(f"{line}\n" for line in lines))
    return folder


def tgif_choice(kind: str) -> Callable[..., Path]:
    """Writers of the tables for actions and transitions."""

    def write(folder: Path, count: int = 5) -> Path:
        header = ["gif_name", "question", "a1", "a2", "a3", "a4", "a5", "answer", "vid_id", "key"]
        rows = [
            [f"tumblr_x{n}_250", f'What does the "goat do {n} times ?', *THINGS, n % 5, f"{kind.upper()}{n}", 20 + n]
            for n in range(count)
        ]
        written(folder / f"Test_{kind}_question.csv", table([header, *rows], "\r\n"))
        return folder

    return write


def tgif_frame(folder: Path, count: int = 5) -> Path:
    """With the training questions, whose most frequent answer is "two"."""
    header = ["gif_name", "question", "answer", "type", "vid_id", "key", "description"]
    answers = ("kite", "two", "red", "street", "two")

    def rows(start: int) -> list[list[object]]:
        return [
            [
                f"tumblr_y{n}_400",
                "what is seen ?",
                answers[n % 5],
                (0, 1, 2, 3, 1)[n % 5],
                f"FRAMEQA{start + n}",
                n,
                "it is ' seen .",
            ]
            for n in range(count)
        ]

    written(folder / "Test_frameqa_question.csv", table([header, *rows(0)], "\r\n"))
    written(folder / "Train_frameqa_question.csv", table([header, *rows(100)], "\r\n"))
    return folder


def tgif_count(folder: Path, count: int = 5) -> Path:
    """The first answer is 0, the second 10."""
    header = ["gif_name", "question", "answer", "vid_id", "key"]
    rows = [
        [f"tumblr_z{n}_250", "How many times does the goat jump ?", (0, 10, 2, 3, 5)[n % 5], f"COUNT{n}", n]
        for n in range(count)
    ]
    written(folder / "Test_count_question.csv", table([header, *rows], "\r\n"))
    return folder


def _open(folder: Path, first_video: int, count: int) -> Path:
    for split, start in (("test", 500), ("train", 0)):
        rows = [
            {
                "answer": ("kite", "goat", "goat")[n % 3],
                "category_id": n,
                "id": start + n,
                "question": f"what is seen {n}?",
                "video_id": first_video + n // 2,
            }
            for n in range(count)
        ]
        written(folder / f"{split}_qa.json", json.dumps(rows))
    return folder


def msrvtt_qa(folder: Path, count: int = 6) -> Path:
    """Two questions a video."""
    return _open(folder, 7010, count)


def msvd_qa(folder: Path, count: int = 6) -> Path:
    """With the names of the clips."""
    names = [f"-4wInvented{n}_{n}_{n + 5} vid{1301 + n}" for n in range(count)]
    written(folder / "youtube_mapping.txt", "\n".join(names))
    return _open(folder, 1301, count)


QUESTION_MINIATURES: dict[str, Callable[..., Path]] = {
    "msrvtt_mc": msrvtt_mc,
    "lsmdc_mc": lsmdc_mc,
    "egomcq": egomcq,
    "nextqa": nextqa,
    "tgif_action": tgif_choice("action"),
    "tgif_transition": tgif_choice("transition"),
    "tgif_frame": tgif_frame,
    "tgif_count": tgif_count,
    "msrvtt_qa": msrvtt_qa,
    "msvd_qa": msvd_qa,
}
