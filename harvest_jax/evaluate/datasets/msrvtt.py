"""MSR-VTT: 10,000 clips (video0 to video9999) with 20 captions each. Retrieval on 1k-A and on the whole test set.

The official split is by number: 0-6512 train, 6513-7009 validation, 7010-9999 test (compared with
collaborative-experts' misc/datasets/msrvtt/*_list_full.txt and with the numbers in msrvtt_caption_test.json). 1k-A
(JSFusion, ECCV 2018) is 1,000 of all clips with one caption each. Nearly everybody chooses a checkpoint on 1k-A itself,
because it has no validation set (frozen-in-time, issue 28).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harvest_jax.errors import DataError
from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.evaluate.benchmarks.caption_lists import captions_of, read_caption_list
from harvest_jax.evaluate.clips.video_files import stem
from harvest_jax.input.annotation_files import holds_json, only, read_json, read_table, records_of

TEST = range(7010, 10_000)
_SOURCE = (
    "the captions are in msrvtt_data.zip of github.com/ArrowLuo/CLIP4Clip (release v0.0), the videos in "
    "www.robots.ox.ac.uk/~maxbain/frozen-in-time/data/MSRVTT.zip"
)
_LICENCE = "not stated in the files; the videos are YouTube's"


def read_captions(path: Path) -> dict[str, list[str]]:
    """All captions of a file, by video ("video7010"), in the order of the file.

    Three forms are known: VindLU's lists (msrvtt_caption_test.json; seen), the challenge's
    `{"sentences": [{"video_id", "caption"}]}` (test_videodatainfo.json, and MSRVTT_data.json, which CLIP4Clip reads)
    and frozen-in-time's `{"annotations": [{"image_id", "caption"}]}` (MSR_VTT.json). Of the last two the readers
    named were seen, the files were not.

    Raises:
      DataError: the file has none of these forms.
    """
    value = read_json(path, (list, dict))
    if isinstance(value, list):
        return captions_of(value, path)
    for part, name in (("sentences", "video_id"), ("annotations", "image_id")):
        if isinstance(value.get(part), list):
            return _collect(value[part], name, f"{path}, {part}")
    raise DataError(f"{path} has neither 'sentences' nor 'annotations': it is not a caption file of MSR-VTT")


def _collect(entries: list[Any], name: str, where: str) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    for record in records_of(entries, where):
        captions.setdefault(stem(record.text(name)), []).append(record.text("caption"))
    return captions


def _read_1k_a(files: Mapping[str, Path]) -> list[Row]:
    path = only(files)
    if holds_json(path):
        return [Row(video, video, captions=tuple(captions)) for video, captions in read_caption_list(path).items()]
    records = read_table(path, ("video_id", "sentence"))
    return [
        Row(video, video, captions=(record.text("sentence"),), where=record.where)
        for record, video in ((record, record.text("video_id")) for record in records)
    ]


def _read_full(files: Mapping[str, Path]) -> list[Row]:
    captions = read_captions(only(files))
    videos = (f"video{number}" for number in TEST)
    return [Row(video, video, captions=tuple(captions[video])) for video in videos if video in captions]


BENCHMARKS = (
    Benchmark(
        name="msrvtt_1ka",
        title="MSR-VTT 1k-A",
        version="1",
        task="retrieval",
        split="test of 1k-A (JSFusion)",
        # the JSON form is VindLU's and UMT's; its readers were seen, the file was not
        files={"captions": ("MSRVTT_JSFUSION_test.csv", "msrvtt_ret_test1k.json", "msrvtt_test1k.json")},
        read=_read_1k_a,
        expected={"rows": 1000, "videos": 1000, "captions": 1000},
        captions="one",
        settings={},
        source=_SOURCE,
        licence=_LICENCE,
        notes="Nine rows share their caption with another row (four texts): R@1 of text to video stays under 100. "
        "The captions are not all spelled as in the file of all captions. Conventions: CLIP4Clip 12 frames at 1 a "
        "second and 32 tokens, UMT zero-shot 4 frames and 32 tokens, ViCLIP 8 frames.",
    ),
    Benchmark(
        name="msrvtt_full",
        title="MSR-VTT full test",
        version="1",
        task="retrieval",
        split="test (official)",
        files={
            "captions": (
                "msrvtt_caption_test.json",
                "test_videodatainfo.json",
                "MSRVTT_data.json",
                "MSR_VTT.json",
            )
        },
        read=_read_full,
        expected={"rows": 2990, "videos": 2990, "captions": 59_800},
        captions="several",
        settings={},
        source=_SOURCE,
        licence=_LICENCE,
        notes="20 captions a video; many captions of one video are equal.",
    ),
)
