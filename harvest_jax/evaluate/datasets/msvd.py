"""MSVD: 1,970 short clips of YouTube with about 40 captions each; 670 are the test set."""

from collections.abc import Mapping
from pathlib import Path

from harvest_jax.errors import DataError
from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.evaluate.benchmarks.caption_lists import check_listed, read_caption_list
from harvest_jax.evaluate.clips.video_files import stem
from harvest_jax.input.annotation_files import read_bytes, read_lines
from harvest_jax.terminal import printable

TEST_LIST = "test_list.txt"
LIST = "list of videos"


def read_raw_captions(path: Path) -> dict[str, list[str]]:
    """Captions by video out of collaborative-experts' raw-captions.pkl: {video: [[word, ...], ...]}.

    A pickle is a program; it is not run but interpreted, and only lists of texts are accepted. (The form is that of
    CLIP4Clip's and collaborative-experts' readers; the file was not seen.)

    Raises:
      DataError: the file cannot be read or holds something else.
    """
    from harvest_jax.weights.files.pickle_reader import read_pickle

    try:
        value, unknown = read_pickle(read_bytes(path), str(path))
        if unknown:
            raise DataError(f"it uses {unknown[0]}")
    except DataError as error:
        raise DataError(
            f"{path} is not a pickle of plain lists of words ({printable(error, 160)}); nothing in it was run; "
            "use msvd_caption_test.json"
        ) from error
    if not isinstance(value, dict) or not value:
        raise DataError(f"{path} holds no captions: it must be a dict of lists of lists of words")
    captions = {}
    for video, sentences in value.items():
        if not isinstance(video, str) or not isinstance(sentences, list) or not sentences:
            raise DataError(f"{path}: {printable(video, 80)} has no list of captions")
        if not all(
            isinstance(words, list) and words and all(isinstance(word, str) for word in words) for words in sentences
        ):
            raise DataError(f"{path}: a caption of {printable(video, 80)} is not a list of words")
        captions[video] = [" ".join(words).strip() for words in sentences]
    return captions


def _list_of_pickle(files: Mapping[str, Path]) -> dict[str, Path]:
    """The list of the test videos, if the captions are the pickle of all splits."""
    path = files["captions"]
    if path.suffix.lower() not in (".pkl", ".pickle"):
        return {}
    list_file = path.with_name(TEST_LIST)
    if not list_file.is_file():
        raise DataError(f"{path} holds all splits: {TEST_LIST}, the list of the test videos, must lie beside it")
    return {LIST: list_file}


def _read(files: Mapping[str, Path]) -> list[Row]:
    path = files["captions"]
    if LIST in files:
        list_file = files[LIST]
        captions = read_raw_captions(path)
        videos = [stem(name) for name in read_lines(list_file)]
        check_listed(videos, captions, list_file, path)
    else:
        captions = read_caption_list(path)
        videos = list(captions)
    return [Row(video, video, captions=tuple(captions[video])) for video in videos]


BENCHMARKS = (
    Benchmark(
        name="msvd",
        title="MSVD",
        version="1",
        task="retrieval",
        split="test",
        files={"captions": ("msvd_caption_test.json", "msvd_ret_test.json", "raw-captions.pkl")},
        read=_read,
        expected={"rows": 670, "videos": 670, "captions": 27_763},
        captions="several",
        settings={},
        source="captions and lists are in msvd_data.zip of github.com/ArrowLuo/CLIP4Clip (release v0.0), the videos at "
        "www.cs.utexas.edu/users/ml/clamp/videoDescription",
        licence="not stated in the files; the videos are YouTube's",
        notes="21 to 81 captions a video; 961 captions are shared by several videos, and each counts as right for its "
        "own video only. Scores of video to text depend on the rule for several captions (v2t_rule); the captions "
        "joined to one text are another task and score far higher. Files are called youtubeid_start_end; the vidN of "
        "MSVD-QA are other names of the same clips. Conventions: CLIP4Clip 12 frames at 1 a second and 32 tokens, UMT "
        "12 frames and 64 tokens. raw-captions.pkl holds all splits and needs test_list.txt beside it.",
        more_files=_list_of_pickle,
    ),
)
