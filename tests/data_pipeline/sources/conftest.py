"""A video that the sources under test contain."""

import pytest

from tests.helpers.video_files import numbered_frames, write_video


@pytest.fixture(scope="session")
def video(tmp_path_factory) -> bytes:
    """Four seconds of MP4: 40 numbered frames."""
    return write_video(tmp_path_factory.mktemp("videos") / "good.mp4", numbered_frames(40)).read_bytes()
