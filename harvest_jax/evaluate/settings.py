"""The fields of an evaluation config, checked: ConfigDict in, one frozen dataclass out.

The fields are documented where a person sets them, in `configs/eval/`; every fault found is reported at once.
"""

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from harvest_jax.errors import ConfigError
from harvest_jax.evaluate.prompts import templates
from harvest_jax.evaluate.question_answering import split_prompt
from harvest_jax.evaluate.zero_shot import ENSEMBLES


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """`config.data`: a manifest or shards."""

    manifest: str
    root: str
    shards: str
    split: str
    workers: int


@dataclasses.dataclass(frozen=True)
class Settings:
    """What every evaluation has."""

    task: str
    data: DataSettings
    frames: int
    batch_size: int
    strict: bool
    seed: int


@dataclasses.dataclass(frozen=True)
class RetrievalSettings(Settings):
    """`configs/eval/retrieval.py`."""

    dual_softmax_scale: float


@dataclasses.dataclass(frozen=True)
class ZeroShotSettings(Settings):
    """`configs/eval/zero_shot.py`."""

    label_column: str
    classes: str
    prompts: str | tuple[str, ...]
    ensemble: str


@dataclasses.dataclass(frozen=True)
class MultipleChoiceSettings(Settings):
    """`configs/eval/multiple_choice.py`."""

    prompt: str


@dataclasses.dataclass(frozen=True)
class QuestionSettings(Settings):
    """`configs/eval/videoqa.py`."""

    prompt: str
    answers: str
    text_length: int


TASKS: dict[str, type[Settings]] = {
    "retrieval": RetrievalSettings,
    "zero_shot": ZeroShotSettings,
    "multiple_choice": MultipleChoiceSettings,
    "videoqa": QuestionSettings,
}


def check(config: Mapping[str, Any] | ConfigDict) -> Settings:
    """The frozen, checked form of an evaluation config (a mapping or a ConfigDict).

    Raises:
      ConfigError: one message that lists every fault found.
    """
    task = config.get("task")
    if task not in TASKS:
        raise ConfigError(f"task={task!r} is none of {', '.join(TASKS)}: give an evaluation config (configs/eval/)")
    faults: list[str] = []
    data = config.get("data", {})
    if not isinstance(data, Mapping | ConfigDict):
        faults.append(f"data must be a group of fields, not {data!r}")
        data = {}
    values = {**dict(config.items()), "data": _build(DataSettings, dict(data.items()), "data.", faults)}
    settings = _build(TASKS[task], values, "", faults)
    if settings is not None:
        faults += _range_faults(settings)
    if faults or settings is None:
        raise ConfigError("; ".join(faults))
    return settings


def _build(cls: type, values: Mapping[str, Any], prefix: str, faults: list[str]) -> Any:
    """One dataclass from a mapping, or None with the faults noted."""
    known = typing.get_type_hints(cls)
    before = len(faults)
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            faults.append(f"unknown field {prefix}{key}" + (f" (did you mean {prefix}{near[0]}?)" if near else ""))
    checked = {}
    for name, kind in known.items():
        if name not in values:
            faults.append(f"missing field {prefix}{name}")
            continue
        value = values[name]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        elif isinstance(value, list):
            value = tuple(value)
        right = _text_or_texts(value) if typing.get_args(kind) else isinstance(value, kind)
        if not right or (isinstance(value, bool) and kind is not bool):
            if name != "data":  # its own faults are noted already
                faults.append(f"{prefix}{name} must be {getattr(kind, '__name__', kind)}, not {value!r}")
            continue
        checked[name] = value
    return cls(**checked) if len(faults) == before and len(checked) == len(known) else None


def _text_or_texts(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, tuple) and all(isinstance(item, str) for item in value))


def _range_faults(settings: Settings) -> list[str]:
    """What is well-typed and still cannot be used."""
    faults = []
    data = settings.data
    if not (data.manifest or data.shards):
        faults.append("set data.manifest (a table of videos), data.shards (a folder of `harvest shards`), or both")
    if data.shards and not data.split:
        faults.append("data.split is empty: shards need one")
    ranges: dict[str, tuple[float, float, float]] = {
        "frames": (settings.frames, 0, 1024),
        "batch_size": (settings.batch_size, 1, 65536),
        "data.workers": (data.workers, 0, 1024),
        "seed": (settings.seed, 0, 2**31 - 1),
    }
    if isinstance(settings, RetrievalSettings):
        ranges["dual_softmax_scale"] = (settings.dual_softmax_scale, 0, 1e4)
    if isinstance(settings, QuestionSettings):
        ranges["text_length"] = (settings.text_length, 0, 77)
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:  # also catches nan
            faults.append(f"{name}={value} is outside {low}..{high}")
    try:
        if isinstance(settings, ZeroShotSettings):
            if settings.ensemble not in ENSEMBLES:
                faults.append(f"ensemble={settings.ensemble!r} is none of {', '.join(ENSEMBLES)}")
            if not settings.label_column:
                faults.append("label_column is empty: name the column of the labels")
            templates(settings.prompts)
        elif isinstance(settings, MultipleChoiceSettings):
            if settings.prompt.count("{option}") != 1:
                faults.append(f"prompt={settings.prompt!r} must hold {{option}} once (and may hold {{question}})")
        elif isinstance(settings, QuestionSettings):
            split_prompt(settings.prompt)
    except ConfigError as error:
        faults.append(str(error))
    return faults
