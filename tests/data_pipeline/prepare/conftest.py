"""Videos that several test modules prepare."""

from pathlib import Path

import pytest

from tests.helpers.video_files import write_numbered_videos


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """A folder of v0.mp4 to v3.mp4, of ten numbered frames each."""
    return write_numbered_videos(tmp_path_factory.mktemp("media"), 4)
