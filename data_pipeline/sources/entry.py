"""What a source hands over for each clip: cells as they were found, not yet checked, and where the clip's bytes are."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Place:
    """Which part of a file is the clip's: all of it, or what another program packed there.

    `offset` and `size`, in bytes: a tar's member, a TFRecord's record. `record`: the number of an ArrayRecord's record.
    `field`: the bytes are a `tf.train.Example`, and the clip is in this field of it.
    """

    offset: int | None = None
    size: int | None = None
    record: int | None = None
    field: str = ""


WHOLE = Place()  # the whole file


@dataclasses.dataclass(frozen=True)
class Line:
    """One clip of a source.

    `number`: its place there (1 is the first line or row). `cells`: its columns, in our own names once a layout has
    been recognised. `fault`: the reason why it cannot be used. `extra`: the other columns, None where they stand among
    the cells. `clip`: what it is called where several lie in one file, `00000.tar/000000012.mp4`; its id comes from
    that. `folder`: where the video's name begins, below the root.
    """

    number: int
    cells: dict[str, Any]
    fault: str = ""
    place: Place = WHOLE
    extra: dict[str, Any] | None = None
    clip: str = ""
    folder: str = ""
