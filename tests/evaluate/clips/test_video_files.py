"""From names in annotations to files in a folder; that the containers such files have can be opened."""

import os

import pytest

from data_pipeline.decode.clip import decode_clip
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.media_paths import resolve_below
from harvest_jax.errors import DataError
from harvest_jax.evaluate.clips.video_files import list_videos, stem
from tests.helpers.video_files import numbered_frames, read_number, write_video


def folder_of(tmp_path, *names):
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return list_videos(tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("video7010", "video7010"),
        ("video7010.mp4", "video7010"),
        ("clips/a.AVI", "a"),
        ("12@N03_75_76.", "12@N03_75_76"),
        ("12@N03_75_76.3g2", "12@N03_75_76"),
        ("0001_A_Film_00.01.08.464-00.01.11.220", "0001_A_Film_00.01.08.464-00.01.11.220"),
        ("0001_A_Film_00.01.08.464-00.01.11.220.avi", "0001_A_Film_00.01.08.464-00.01.11.220"),
        ("-4wsuPCjDBc_5_15", "-4wsuPCjDBc_5_15"),
        ("a.mov.mp4", "a.mov"),
        (".mp4", ".mp4"),
        (".", "."),
    ],
)
def test_stems(name, expected):
    assert stem(name) == expected


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("video7010", "MSRVTT/videos/all/video7010.mp4"),
        ("video7010.mp4", "MSRVTT/videos/all/video7010.mp4"),
        ("video7010.avi", "MSRVTT/videos/all/video7010.mp4"),  # it was converted
        ("their/disk/video7010.mp4", "MSRVTT/videos/all/video7010.mp4"),
        ("/their/disk/video7010.mp4", "MSRVTT/videos/all/video7010.mp4"),
        ("-4wsuPCjDBc_5_15", "-4wsuPCjDBc_5_15.AVI"),
        ("-4wsuPCjDBc_5_15.avi", "-4wsuPCjDBc_5_15.AVI"),
        ("0001_F_00.01.08.464-00.01.11.220", "0001_F/0001_F_00.01.08.464-00.01.11.220.avi"),
        ("1@N0_2_3.", "1@N0_2_3."),  # as it was downloaded
        ("4@N0_5_6.", "4@N0_5_6..mp4"),  # by LocalizingMoments' script
        ("7@N0_8_9.", "7@N0_8_9.mov"),  # repaired by hand
        ("7@N0_8_9.mpg", "7@N0_8_9.mov"),
        ("4@N0_7_7.wmv", "4@N0_7_7.wmv.mp4"),
        ("v_abcdefghijk", "abcdefghijk.mkv"),  # ActivityNet without its prefix
        ("v_ABCDEFGHIJK", None),  # ids differ in case
        ("Video7010", None),
        ("notes", None),
        ("video701", None),
        ("", None),
        ("..", None),
    ],
)
def test_names_and_files(tmp_path, name, file):
    files = folder_of(
        tmp_path,
        "MSRVTT/videos/all/video7010.mp4",
        "-4wsuPCjDBc_5_15.AVI",
        "0001_F/0001_F_00.01.08.464-00.01.11.220.avi",
        "1@N0_2_3.",
        "4@N0_5_6..mp4",
        "7@N0_8_9.mov",
        "4@N0_7_7.wmv.mp4",
        "abcdefghijk.mkv",
        "notes.txt",
        ".hidden.mp4",
    )
    found = files.find(name)
    assert found == file
    if found is not None:
        assert os.path.isfile(resolve_below(os.path.realpath(tmp_path), found))


def test_the_very_name_comes_before_other_suffixes(tmp_path):
    files = folder_of(tmp_path, "a.mp4", "a.webm", "b", "b.mp4")
    assert files.find("a.webm") == "a.webm"
    assert files.find("b") == "b"
    for name in ("a", "a.avi"):
        with pytest.raises(DataError, match=r"'a.*' is both a\.mp4 and a\.webm in .*: keep one of them"):
            files.find(name)


def test_folders_in_the_name_choose_among_files_of_one_name(tmp_path):
    files = folder_of(tmp_path, "train/a.mp4", "test/a.mp4", "x/test/a.mp4")
    assert files.find("train/a.mp4") == "train/a.mp4"
    assert files.find("./train/a.mp4") == "train/a.mp4"
    assert files.find("test/a.mp4") == "test/a.mp4"
    assert files.find("x/test/a") == "x/test/a.mp4"
    with pytest.raises(DataError, match=r"is both test/a\.mp4 and train/a\.mp4"):
        files.find("a")


def test_thumbnails_and_other_files_are_not_videos(tmp_path):
    files = folder_of(tmp_path, "a.jpg", "a.mp4", "a.json", "b.jpg", "c.json")
    assert files.find("a") == "a.mp4"
    assert files.find("a.webm") == "a.mp4"
    assert files.find("b") == "b.jpg"
    assert files.find("c") is None


def test_one_file_under_two_names_of_folders_is_one(tmp_path):
    folder_of(tmp_path, "all/a.mp4")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "a.mp4").symlink_to(tmp_path / "all" / "a.mp4")
    (tmp_path / "again").symlink_to(tmp_path / "all")  # a linked folder is not followed
    assert list_videos(tmp_path).find("a") == "all/a.mp4"


def test_a_name_that_looks_like_an_address_can_be_opened(tmp_path):
    files = folder_of(tmp_path, "a: b.mp4")
    assert files.find("a: b") == "./a: b.mp4"
    assert os.path.isfile(resolve_below(os.path.realpath(tmp_path), "./a: b.mp4"))


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(DataError, match=r"no folder .*absent of videos"):
        list_videos(tmp_path / "absent")
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(DataError, match="holds no video, only 1 other files"):
        list_videos(tmp_path)


CONTAINERS = [
    ("a.mpg", "mpeg2video"),
    ("b.mpg", "mpeg1video"),
    ("a.wmv", "wmv2"),
    ("a.mts", "libx264"),
    ("a.flv", "flv"),
]


@pytest.mark.parametrize(("name", "codec"), CONTAINERS)
def test_didemos_containers_open(tmp_path, name, codec):
    path = write_video(tmp_path / name, numbered_frames(50), rate=25, codec=codec)
    clip = decode_clip(path, DecodeSpec(num_frames=5, short_side=48))
    assert [read_number(frame) for frame in clip.frames] == [5, 15, 25, 35, 45]
    part = decode_clip(path, DecodeSpec(num_frames=2, short_side=48), 1.0, 1.8)
    assert [read_number(frame) for frame in part.frames] == [30, 40]


@pytest.mark.parametrize(("name", "codec"), [("a.3gp", "mpeg4"), ("a.3g2", "mpeg4")])
def test_didemos_phone_videos_open(tmp_path, name, codec):
    path = write_video(tmp_path / name, numbered_frames(50), rate=25, codec=codec)
    clip = decode_clip(path, DecodeSpec(num_frames=5, short_side=48))
    assert [read_number(frame) for frame in clip.frames] == [5, 15, 25, 35, 45]
