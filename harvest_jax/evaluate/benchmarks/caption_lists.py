"""Captions as the readers of several datasets find them: JSON lists of `{"video": ..., "caption": ...}`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harvest_jax.errors import DataError
from harvest_jax.evaluate.clips.video_files import stem
from harvest_jax.input.annotation_files import read_json, records_of
from harvest_jax.input.annotation_records import Record
from harvest_jax.terminal import printable


def texts_of(record: Record, name: str) -> list[str]:
    """A cell that holds one text or a list of texts.

    Raises:
      DataError: it holds something else, or an empty text.
    """
    return record.texts(name) if isinstance(record.value(name), list) else [record.text(name)]


def read_caption_list(path: Path) -> dict[str, list[str]]:
    """The captions of a JSON file, see `captions_of`.

    Raises:
      DataError: the file cannot be read, or is not of this form.
    """
    return captions_of(read_json(path, list), path)


def captions_of(entries: list[Any], path: Path) -> dict[str, list[str]]:
    """Captions by video name without suffix, in the order of the file.

    The form of Singularity, VindLU and UMT: a list of `{"video": "video7010.mp4", "caption": text or list of texts}`.
    Several entries of one video are taken together.

    Raises:
      DataError: the entries are not of this form.
    """
    captions: dict[str, list[str]] = {}
    for record in records_of(entries, str(path)):
        captions.setdefault(stem(record.text("video")), []).extend(texts_of(record, "caption"))
    return captions


def check_listed(listed: list[str], described: Mapping[str, object], list_file: Path, caption_file: Path) -> None:
    """Check that every video of a list has captions.

    Raises:
      DataError: one has none.
    """
    absent = [name for name in listed if name not in described]
    if absent:
        raise DataError(
            f"{list_file}: {len(absent):,} of {len(listed):,} videos have no captions in {caption_file}, the first: "
            f"{printable(absent[0], 80)}; do the two files belong together?"
        )
