"""Which fields of a TFDS dataset are the clip, its captions and its id, from its features.json.

The file is read as JSON and not by TFDS, which would import any Python class that an untrusted file names.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.media_paths import VideoRejected, open_regular
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.terminal import printable

_CLIPS = ("video", "clip", "mp4", "webm", "video_bytes", "encoded_video", "frames", "jpegs", "image", "jpeg")
_CAPTIONS = ("caption", "captions", "text", "texts", "description", "sentence", "sentences", "title", "name")
_IDS = ("id", "video_id", "clip_id", "image_id", "key", "videoid")
_MAX_JSON = 64 << 20  # bytes
_OPTION = "choose with --fields video=NAME,caption=NAME"


@dataclasses.dataclass(frozen=True)
class TfdsField:
    """A field of every example: its name (`frames/image` within a group), its kind, and whether it is a list.

    `kind` is "text", "bytes", "image", "number" or "other".
    """

    name: str
    kind: str
    many: bool


@dataclasses.dataclass(frozen=True)
class ClipFieldNames:
    """The fields that make up a clip; `extra` are the other texts and numbers. `id` is None if there is none."""

    video: str
    caption: str
    id: str | None
    extra: tuple[str, ...]


def choose(folder: Path, asked: str) -> ClipFieldNames:
    """Choose the fields of a dataset.

    Args:
      folder: the one that holds features.json.
      asked: "video=NAME,caption=NAME,id=NAME", or only those that cannot be chosen automatically.

    Raises:
      DataError: the file is missing, damaged or in an old format; no field or several fields fit.
      ConfigError: `asked` has another form, or names a field that does not exist.
    """
    fields = _read(folder / "features.json")
    by_name = {field.name: field for field in fields}
    named = _parse(asked, by_name, folder)
    video = named.get("video") or _video(fields, folder)
    texts = [field for field in fields if field.kind in ("text", "bytes") and field.name != video]
    caption = named.get("caption") or _caption(texts, folder)
    ids = [name for name in _IDS if name in by_name and not by_name[name].many and name not in (video, caption)]
    name = named.get("id") or next(iter(ids), None)
    kept = [field.name for field in fields if field.kind in ("text", "number") and not field.many]
    return ClipFieldNames(video, caption, name, tuple(one for one in kept if one not in (video, caption, name)))


def read_json(path: Path) -> Any:
    """The content of a JSON file of a dataset.

    Raises:
      DataError: it cannot be read, or is too large.
      ValueError: it is not JSON.
      RecursionError: it is nested too deeply.
    """
    try:
        with open_regular(path, _MAX_JSON) as file:
            return json.load(file)
    except VideoRejected as error:
        raise DataError(f"{path} cannot be read: {error.reason}") from error


def _parse(asked: str, by_name: dict[str, TfdsField], folder: Path) -> dict[str, str]:
    named = {}
    for part in filter(None, asked.split(",")):
        role, _, name = part.partition("=")
        if role not in ("video", "caption", "id") or not name:
            raise ConfigError(f"--fields {asked}: write it like video=NAME,caption=NAME,id=NAME")
        if name not in by_name:
            raise ConfigError(f"--fields {asked}: {folder} has no field {name!r}; it has {_list(by_name.values())}")
        named[role] = name
    return named


def _video(fields: Sequence[TfdsField], folder: Path) -> str:
    moving = [field for field in fields if field.kind == "image" and field.many]
    moving += [field for field in fields if field.kind == "bytes" and _last(field.name) in _CLIPS]
    candidates = moving or [field for field in fields if field.kind == "image"]
    return _only(candidates, fields, "video", folder)


def _caption(texts: Sequence[TfdsField], folder: Path) -> str:
    likely = [field for field in texts if _last(field.name) in _CAPTIONS[:2]]
    likely = likely or [field for field in texts if _last(field.name) in _CAPTIONS]
    return _only(likely or [field for field in texts if _last(field.name) not in _IDS], texts, "caption", folder)


def _only(candidates: Sequence[TfdsField], fields: Sequence[TfdsField], role: str, folder: Path) -> str:
    if len(candidates) == 1:
        return candidates[0].name
    what = {"video": "clip (encoded video, or encoded pictures)", "caption": "caption"}[role]
    if candidates:
        raise DataError(f"{folder}: several fields may be the {what}: {_list(candidates)}; {_OPTION}")
    raise DataError(f"{folder}: no field looks like a {what}; the fields are {_list(fields) or 'none'}; {_OPTION}")


def _list(fields: Iterable[TfdsField]) -> str:
    return printable(", ".join(sorted(field.name for field in fields)), 300)


def _last(name: str) -> str:
    return name.rpartition("/")[2].lower()


def _read(path: Path) -> list[TfdsField]:
    if not path.exists():
        raise DataError(f"{path} is missing: it describes the fields of the dataset's records")
    try:
        return _leaves(read_json(path)["featuresDict"]["features"], "", False)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path} is damaged, or from a TFDS older than 4.3: write the dataset again with a newer TFDS"
        ) from error


def _leaves(features: dict[str, Any], prefix: str, many: bool) -> list[TfdsField]:
    found = []
    for key, feature in features.items():
        found += _leaf(feature, f"{prefix}{key}", many)
    return found


def _leaf(feature: dict[str, Any], name: str, many: bool) -> list[TfdsField]:
    kind = str(feature.get("pythonClassName", "")).rpartition(".")[2]
    if "featuresDict" in feature:
        return _leaves(feature["featuresDict"]["features"], f"{name}/", many)
    if "sequence" in feature and kind == "Sequence":
        return _leaf(feature["sequence"]["feature"], name, True) if not many else [TfdsField(name, "other", True)]
    if "video" in feature:
        return [TfdsField(name, "image" if not many else "other", True)]
    if "image" in feature:
        return [TfdsField(name, "image", many)]
    if "text" in feature:
        return [TfdsField(name, "text", many)]
    if "tensor" in feature:
        scalar = not feature["tensor"].get("shape", {}).get("dimensions")
        plain = feature["tensor"].get("encoding", "none") == "none"
        kinds = {"string": "bytes", "object": "bytes"} | dict.fromkeys(("int32", "int64", "float32"), "number")
        return [
            TfdsField(name, kinds.get(feature["tensor"].get("dtype"), "other") if scalar and plain else "other", many)
        ]
    return [TfdsField(name, "number" if "classLabel" in feature else "other", many)]
