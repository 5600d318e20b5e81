"""Captions from files beside the clip: `NAME.txt` and `NAME.json`, on a disk or in a tar."""

import json
from typing import Any

from data_pipeline.sources.raw_row import RowFault

MAX_TEXT = 1 << 20  # bytes of one of them


def read_text(raw: bytes, name: str) -> str:
    """Text from its bytes.

    Raises:
      RowFault: not UTF-8.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RowFault(f"bad text: its {name} is not UTF-8") from error


def read_object(raw: bytes, name: str) -> dict[str, Any]:
    """A JSON object from its bytes.

    Raises:
      RowFault: not UTF-8, not JSON, not an object.
    """
    try:
        value = json.loads(read_text(raw, name))
    except (ValueError, RecursionError) as error:
        raise RowFault(f"bad text: its {name} is not JSON ({str(error)[:80]})") from error
    if not isinstance(value, dict):
        raise RowFault(f"bad text: its {name} is not a JSON object")
    return value


def take_captions(columns: dict[str, Any], texts: list[str]) -> Any:
    """The captions of a clip: the texts of NAME.txt, or else the captions in the columns of NAME.json.

    The columns `caption` and `captions` are removed from `columns` where they are used, or repeat the only text.
    """
    if not texts:
        both = [columns.pop(name, None) for name in ("captions", "caption")]
        return next((value for value in both if value not in (None, "", [])), None)
    if columns.get("caption") in (texts[0], texts[0].strip(), texts):
        del columns["caption"]
    return texts
