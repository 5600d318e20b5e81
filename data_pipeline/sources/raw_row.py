"""What a source yields for each clip: columns as they were found, not checked yet, and where the clip's bytes are."""

import dataclasses
from typing import Any

from data_pipeline.media_paths import WHOLE_FILE, FilePart

OWN_COLUMNS = ("id", "video", "caption", "captions", "split", "start", "end")
# an evaluation manifest may have one of these instead of captions
ANSWER_COLUMNS = ("question", "label", "options", "answer")
MAX_EXTRA = 100_000  # characters of all columns except our own, together


class RowFault(Exception):
    """This row cannot be used; the text is the reason."""


@dataclasses.dataclass(frozen=True)
class RawRow:
    """One clip of a source.

    Attributes:
      number: line or row of the source, from 1.
      cells: its columns, named as in OWN_COLUMNS once the layout has been recognised.
      fault: why it cannot be used; "" if nothing is wrong so far.
      part: which part of the file holds the clip.
      extra: the other columns; None where they stand among the cells.
      clip: the clip's name where several lie in one file, as in `00000.tar/000000012.mp4`; the default id is made of
        it.
      folder: the folder, below the root, that the video's name is relative to.
    """

    number: int
    cells: dict[str, Any]
    fault: str = ""
    part: FilePart = WHOLE_FILE
    extra: dict[str, Any] | None = None
    clip: str = ""
    folder: str = ""
