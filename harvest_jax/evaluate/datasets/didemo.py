"""DiDeMo: personal videos of Flickr, each described moment by moment; all descriptions of a video are one text."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.evaluate.benchmarks.caption_lists import check_listed
from harvest_jax.input.annotation_files import read_lines, read_records

# Annotators saw the first 30 s of a video (README of LocalizingMoments).
SEEN_SECONDS = 30.0
CLIP4CLIP_SECONDS = 31.0


def _read(files: Mapping[str, Path], seconds: float) -> list[Row]:
    descriptions: dict[str, list[str]] = {}
    for record in read_records(files["descriptions"]):
        descriptions.setdefault(record.text("video"), []).append(record.text("description"))
    videos = read_lines(files["list of videos"])
    check_listed(videos, descriptions, files["list of videos"], files["descriptions"])
    return [Row(video, video, end=seconds, captions=(" ".join(descriptions[video]),)) for video in videos]


def _first_30_s(files: Mapping[str, Path]) -> list[Row]:
    return _read(files, SEEN_SECONDS)


def _first_31_s(files: Mapping[str, Path]) -> list[Row]:
    return _read(files, CLIP4CLIP_SECONDS)


_DIDEMO = Benchmark(
    name="didemo",
    title="DiDeMo",
    version="1",
    task="retrieval",
    split="test",
    files={"descriptions": ("test_data.json",), "list of videos": ("didemo/test_list.txt", "test_list.txt")},
    read=_first_30_s,
    expected={"rows": 1004, "videos": 1004, "captions": 1004},
    captions="paragraph",
    settings={},
    source="test_data.json is in the folder data of github.com/LisaAnne/LocalizingMoments, test_list.txt in "
    "misc/datasets/didemo of github.com/albanie/collaborative-experts; LocalizingMoments says where the videos are",
    licence="BSD 2-Clause (annotations); Creative Commons, each video its own (LocalizingMoments' video_licenses.txt)",
    notes="The text of a video is all its descriptions in the order of the file, with a space between (as "
    "collaborative-experts, CLIP4Clip, UMT). Only the first 30 s count: our choice of the rules in use, because "
    "annotators saw no more; it is UMT's and InternVideo2's trimmed30. didemo_31s has CLIP4Clip's 0 to 31 s. The data "
    "file has 4,021 descriptions of 1,037 videos, the list keeps 1,004 of them. Conventions: CLIP4Clip 64 frames at 1 "
    "a second and 64 tokens, UMT 12 frames and 64 tokens.",
)
BENCHMARKS = (
    _DIDEMO,
    dataclasses.replace(
        _DIDEMO,
        name="didemo_31s",
        title="DiDeMo, first 31 s",
        read=_first_31_s,
        notes="As didemo, with CLIP4Clip's span of 0 to 31 s.",
    ),
)
