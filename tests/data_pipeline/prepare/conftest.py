"""Videos that several test modules prepare."""

from pathlib import Path

import pytest

from tests.helpers.video_files import numbered_frames, write_video


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """A folder of v0.mp4 to v3.mp4, of ten numbered frames each."""
    folder = tmp_path_factory.mktemp("media")
    frames = numbered_frames(40)
    for number in range(4):
        write_video(folder / f"v{number}.mp4", frames[10 * number : 10 * number + 10])
    return folder
