"""A video that several test modules decode."""

from pathlib import Path

import pytest

from tests.helpers.video_files import numbered_frames, write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """Five seconds of MP4 with B-frames: 50 numbered frames."""
    return write_video(tmp_path_factory.mktemp("videos") / "good.mp4", numbered_frames(50), options={"bf": "2"})
