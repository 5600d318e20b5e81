"""A source: a generated world (harvest_jax/synthetic). Its file says how many clips; each is drawn when decoded."""

import itertools
from collections.abc import Iterator
from pathlib import Path

from data_pipeline.media_paths import FilePart
from data_pipeline.sources.raw_row import OWN_COLUMNS, RawRow
from harvest_jax.synthetic.rows import numbers_of, read_world


def read_rows(path: Path, video: str, split: str | None) -> Iterator[RawRow]:
    """The clips of a world.

    Args:
      path: its file.
      video: the file's name below the root.
      split: None: all.

    Raises:
      DataError: the file cannot be read, or describes no world of this version.
    """
    world = read_world(path)
    lines = itertools.count(1)
    for name in world.clips:
        if split not in (None, name):
            yield RawRow(next(lines), {"video": video, "split": name, "id": f"{name}-0"})  # so that its name is known
            continue
        for number, columns in numbers_of(world, name):
            cells = {"id": f"{name}-{number:08d}", "video": video, "split": name}
            cells |= {column: value for column, value in columns.items() if column in OWN_COLUMNS}
            extra = {column: value for column, value in columns.items() if column not in OWN_COLUMNS}
            part = FilePart(record=number, field=name)
            yield RawRow(next(lines), cells, part=part, extra=extra, clip=f"{video}/{name}-{number:08d}")
