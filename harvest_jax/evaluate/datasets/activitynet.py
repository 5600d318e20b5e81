"""ActivityNet Captions: videos of some minutes with a sentence for each event; all of a video are one text."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from harvest_jax.errors import DataError
from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.evaluate.benchmarks.caption_lists import captions_of
from harvest_jax.input.annotation_files import only, read_json
from harvest_jax.input.annotation_records import Record
from harvest_jax.terminal import printable

_YOUTUBE_ID = 11  # letters


def video_name(name: str) -> str:
    """A video's name with "v_" before the YouTube id, whether the file has it or not."""
    return f"v_{name}" if len(name) == _YOUTUBE_ID else name


def _read(files: Mapping[str, Path], by_time: bool) -> list[Row]:
    path = only(files)
    value = read_json(path, (dict, list))
    if isinstance(value, dict):
        sentences = {name: _sentences(name, entry, path, by_time) for name, entry in value.items()}
    elif by_time:
        raise DataError(f"{path} has no times: the order in time needs val_1.json, an object of videos")
    else:
        sentences = captions_of(value, path)
    named = [(video_name(name), texts) for name, texts in sentences.items()]
    return [Row(video, video, captions=(" ".join(texts),)) for video, texts in named]


def _sentences(name: str, entry: object, path: Path, by_time: bool) -> list[str]:
    where = f"{path}, {printable(name, 80)}"
    if not isinstance(entry, dict):
        raise DataError(f"{where}: must be an object with sentences and timestamps; is it ActivityNet's class file?")
    record = Record(where, entry)
    texts, spans = record.texts("sentences"), record.spans("timestamps")
    if len(texts) != len(spans):
        raise record.fault(f"{len(texts)} sentences, but {len(spans)} timestamps")
    if by_time:
        texts = [text for text, _ in sorted(zip(texts, spans, strict=True), key=lambda pair: pair[1][0])]
    return texts


def _in_file_order(files: Mapping[str, Path]) -> list[Row]:
    return _read(files, by_time=False)


def _in_time_order(files: Mapping[str, Path]) -> list[Row]:
    return _read(files, by_time=True)


_ACTIVITYNET = Benchmark(
    name="activitynet",
    title="ActivityNet Captions",
    version="1",
    task="retrieval",
    split="val_1",
    # the last form is VindLU's and UMT's; its readers were seen, the file was not
    files={"captions": ("val_1.json", "activitynet/captions_val.json", "captions_val.json", "anet_ret_val_1.json")},
    read=_in_file_order,
    expected={"rows": 4917, "videos": 4917, "captions": 4917},
    captions="paragraph",
    settings={},
    source="the captions are in captions.zip of cs.stanford.edu/people/ranjaykrishna/densevid, the videos by request "
    "at activity-net.org/download.html or from YouTube",
    licence="not stated in the files; the videos are YouTube's",
    notes="The text of a video is all its sentences in the order of the file, with a space between, as the field does; "
    "in 131 videos that is not the order of their starts (activitynet_time_order). Whole videos. Many texts are longer "
    "than CLIP's 77 tokens and are cut. Conventions: CLIP4Clip 64 frames at 1 a second and 64 tokens, UMT 12 frames "
    "and 150 tokens. Videos that YouTube no longer has are the main difference between published scores.",
)
BENCHMARKS = (
    _ACTIVITYNET,
    dataclasses.replace(
        _ACTIVITYNET,
        name="activitynet_time_order",
        title="ActivityNet Captions, sentences in order of time",
        read=_in_time_order,
        notes="As activitynet, with the sentences of a video in the order of their starts. Ours, not a benchmark of "
        "the field: it differs in 131 of the 4,917 texts.",
    ),
)
