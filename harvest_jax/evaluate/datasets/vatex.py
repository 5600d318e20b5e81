"""VATEX: clips of 10 s of YouTube with ten English captions each; HGR's half of the validation set is the test set."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harvest_jax.errors import DataError
from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.evaluate.benchmarks.caption_lists import check_listed
from harvest_jax.evaluate.clips.video_files import stem
from harvest_jax.input.annotation_files import read_lines, read_records

CAPTIONS = 10


def read_list(path: Path) -> list[str]:
    """Names of videos: a text file with one a line, or HGR's tst_names.npy, an array of texts.

    Raises:
      DataError: the file cannot be read or holds something else.
    """
    if path.suffix.lower() != ".npy":
        return [stem(line) for line in read_lines(path)]
    try:
        names = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is not an array of names: save them as text, one a line") from error
    if not isinstance(names, np.ndarray) or names.ndim != 1 or names.dtype.kind not in "US" or not len(names):
        raise DataError(f"{path} is not an array of names: save them as text, one a line")
    return [stem(name) for name in names.astype(str).tolist()]


def _read(files: Mapping[str, Path]) -> list[Row]:
    path, list_file = files["captions"], files["list of videos"]
    captions: dict[str, tuple[str, ...]] = {}
    for record in read_records(path):
        name = record.text("videoID")
        if name in captions:
            raise record.fault(f"{name} is there twice")
        captions[name] = tuple(record.texts("enCap"))
        if len(captions[name]) != CAPTIONS:
            raise record.fault(f"'enCap' must hold {CAPTIONS} texts, has {len(captions[name])}")
    videos = read_list(list_file)
    check_listed(videos, captions, list_file, path)
    return [Row(video, video, captions=captions[video]) for video in videos]


BENCHMARKS = (
    Benchmark(
        name="vatex",
        title="VATEX",
        version="1",
        task="retrieval",
        split="test of HGR (1,500 of the 3,000 validation videos)",
        files={
            "captions": ("vatex_validation_v1.0.json",),
            "list of videos": (
                "vatex/test_list.txt",
                "vatex_data/test_list.txt",
                "vatex_test_list.txt",
                "tst_names.npy",
                "test_list.txt",
            ),
        },
        read=_read,
        expected={"rows": 1500, "videos": 1500, "captions": 15_000},
        captions="several",
        settings={},
        source="the captions are at eric-xw.github.io/vatex-website/download.html, the list "
        "(public_split/tst_names.npy, passed on as test_list.txt) in the download of github.com/cshizhe/hgr_v2t, the "
        "videos on YouTube",
        licence="not stated where we looked; the videos are YouTube's",
        notes="Videos are called by the YouTube id and the seconds of the clip, and files are expected to be those "
        "10 s. Part of them is no longer on YouTube: users report 1,335 of 1,500 (ts2_net, issue 11). The ten English "
        "captions are each a query. The formats are from the documentation and from readers; the files were not seen.",
    ),
)
