"""Lists with a clip and the number of its class in each line, as TSN, SlowFast, VideoMAE and UMT write them."""

import re
from collections.abc import Sequence
from pathlib import Path

from harvest_jax.errors import DataError
from harvest_jax.input.annotation_files import read_text
from harvest_jax.input.annotation_records import Record

_CLIP = re.compile(r"(\S.*?)[ \t,]+(\d+)")
_CLIP_WITH_FRAMES = re.compile(r"(\S+)[ \t]+(\d+)[ \t]+(\d+)")


def read_clip_list(path: Path, classes: Sequence[str]) -> list[Record]:
    """The clips of a list: `path number` a line, separated by spaces, tabs or a comma; paths may hold spaces.

    A list in which every line is `path frames number` (TSN's list of frame folders) is read as that.

    Returns:
      Records with `clip` and `label`, the name of the class.

    Raises:
      DataError: a line is something else, a number is that of no class, or there are no lines.
    """
    lines = [(number, line.strip()) for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
    if not lines:
        raise DataError(f"{path} has no lines")
    with_frames = all(_CLIP_WITH_FRAMES.fullmatch(line) for _, line in lines)
    records = []
    for number, line in lines:
        match = (_CLIP_WITH_FRAMES if with_frames else _CLIP).fullmatch(line)
        record = Record(f"{path}, line {number}", {"line": line})
        if match is None:
            raise record.fault(f"must be a clip and the number of its class, is {line!r:.80}")
        place = int(match[match.re.groups])
        if place >= len(classes):
            raise record.fault(f"class number {place}, but the class file has {len(classes)}: 0 to {len(classes) - 1}")
        records.append(Record(record.where, {"clip": match[1], "label": classes[place]}))
    return records
