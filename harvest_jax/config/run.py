"""The border between ml_collections and the library: ConfigDict in, checked frozen dataclasses out.

The fields are documented where a person sets them, in `configs/base.py`; every fault found is reported at once.
"""

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from harvest_jax.config.files import load_dict
from harvest_jax.errors import ConfigError

SIZES = ("demo", "B/32", "B/16", "L/14", "L/14@336", "H/14")


@dataclasses.dataclass(frozen=True)
class ModelFields:
    """`config.model`."""

    size: str
    num_frames: int
    keep_ratio: float
    drop_scope: str
    temporal_init: str
    decoder_layers: int
    dtype: str
    attention: str
    remat: str
    init_from: str


@dataclasses.dataclass(frozen=True)
class TextFields:
    """`config.text`."""

    length: int
    mask_ratio: float
    contrastive: str


@dataclasses.dataclass(frozen=True)
class DataFields:
    """`config.data`."""

    shards: str
    weights: tuple[float, ...]
    split: str
    sampling: str
    crop: str
    min_scale: float
    flip: bool
    workers: int
    prefetch: int
    bad_records: int

    @property
    def folders(self) -> tuple[str, ...]:
        """The shard folders that `shards` names."""
        return tuple(folder.strip() for folder in self.shards.split(","))


@dataclasses.dataclass(frozen=True)
class TrainFields:
    """`config.train`."""

    steps: int
    batch_size: int
    accumulate: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    b1: float
    b2: float
    eps: float
    clip_norm: float
    contrastive_loss: str
    contrastive_weight: float
    loss_chunk: int
    mlm_weight: float
    unmasked_steps: int
    unmasked_learning_rate: float
    unmasked_accumulate: int
    lr_multipliers: tuple[tuple[str, float], ...]
    log_every: int
    save_every: int
    keep_checkpoints: int


@dataclasses.dataclass(frozen=True)
class MeshFields:
    """`config.mesh`."""

    data: int
    fsdp: int


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A whole run, checked."""

    seed: int
    distributed: bool
    model: ModelFields
    text: TextFields
    data: DataFields
    train: TrainFields
    mesh: MeshFields

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict for JSON (tuples become lists there)."""
        return dataclasses.asdict(self)


_SECTIONS = {
    "model": ModelFields,
    "text": TextFields,
    "data": DataFields,
    "train": TrainFields,
    "mesh": MeshFields,
}


def _build(cls: type, values: Mapping[str, Any] | ConfigDict, prefix: str, faults: list[str]) -> Any:
    """One dataclass from one mapping; collects unknown keys, missing keys and wrong types in `faults`."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            faults.append(f"unknown field {prefix}{key}" + (f" (did you mean {prefix}{near[0]}?)" if near else ""))
    kwargs: dict[str, Any] = {}
    for name, field in fields.items():
        if name in _SECTIONS and not prefix:
            section = values.get(name, {})
            if not isinstance(section, Mapping | ConfigDict):
                faults.append(f"{name} must be a group of fields, not {section!r}")
                section = {}
            kwargs[name] = _build(_SECTIONS[name], section, f"{name}.", faults)
        elif name not in values:
            faults.append(f"missing field {prefix}{name}")
        else:
            value = values[name]
            if name == "lr_multipliers":
                value = _lr_multipliers(value, faults)
            elif name == "weights":
                value = _weights(value, faults)
            elif field.type is float and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            elif not isinstance(value, field.type) or (isinstance(value, bool) and field.type is not bool):  # type: ignore[arg-type]
                faults.append(f"{prefix}{name} must be {field.type.__name__}, not {value!r}")  # type: ignore[union-attr]
            kwargs[name] = value
    return None if faults and len(kwargs) < len(fields) else cls(**kwargs)


def _lr_multipliers(value: Any, faults: list[str]) -> tuple[tuple[str, float], ...]:
    try:
        pairs = tuple((str(pattern), float(multiplier)) for pattern, multiplier in value)
        for pattern, multiplier in pairs:
            re.compile(pattern)
            if not 0 <= multiplier < float("inf"):
                faults.append(f"train.lr_multipliers: {pattern!r} has the multiplier {multiplier}, not one from 0 up")
        return pairs
    except (TypeError, ValueError, re.error) as error:
        faults.append(f"train.lr_multipliers must be pairs of (regex, multiplier): {error}")
        return ()


def _weights(value: Any, faults: list[str]) -> tuple[float, ...]:
    try:
        weights = tuple(float(weight) for weight in value)
    except (TypeError, ValueError):
        weights = (-1.0,)
    if not all(0 < weight < float("inf") for weight in weights):
        faults.append(f"data.weights must be numbers above 0, one for each folder of data.shards, not {value!r}")
        return ()
    return weights


def _range_faults(config: RunConfig) -> list[str]:
    """What is well-typed and still cannot be used."""
    model, text, data, train, mesh = config.model, config.text, config.data, config.train, config.mesh
    choices = {
        "model.size": (model.size, SIZES),
        "model.drop_scope": (model.drop_scope, ("clip", "frame", "tube", "motion")),
        "model.temporal_init": (model.temporal_init, ("zeros", "ramp")),
        "model.dtype": (model.dtype, ("float32", "bfloat16")),
        "model.attention": (model.attention, ("auto", "xla", "cudnn")),
        "model.remat": (model.remat, ("none", "dots", "full")),
        "text.contrastive": (text.contrastive, ("masked", "clean")),
        "train.contrastive_loss": (train.contrastive_loss, ("softmax", "sigmoid")),
        "data.sampling": (data.sampling, ("random", "middle")),
        "data.crop": (data.crop, ("random", "center")),
    }
    faults = [
        f"{name}={value!r} is none of {', '.join(of)}" for name, (value, of) in choices.items() if value not in of
    ]
    ranges: dict[str, tuple[float, float, float]] = {
        "seed": (config.seed, 0, 2**31 - 1),
        "model.num_frames": (model.num_frames, 1, 1024),
        "model.keep_ratio": (model.keep_ratio, 0.02, 1),
        "model.decoder_layers": (model.decoder_layers, 0, 64),
        "text.length": (text.length, 3, 77),
        "text.mask_ratio": (text.mask_ratio, 0, 1),
        "data.min_scale": (data.min_scale, 0.01, 1),
        "data.workers": (data.workers, -1, 1024),
        "data.prefetch": (data.prefetch, 1, 1024),
        "data.bad_records": (data.bad_records, 0, 10**9),
        "train.steps": (train.steps, 1, 10**9),
        "train.batch_size": (train.batch_size, 1, 10**7),
        "train.accumulate": (train.accumulate, 1, train.batch_size),
        "train.learning_rate": (train.learning_rate, 0, 10),
        "train.warmup_steps": (train.warmup_steps, 0, 10**9),
        "train.weight_decay": (train.weight_decay, 0, 10),
        "train.b1": (train.b1, 0, 0.9999999),
        "train.b2": (train.b2, 0, 0.9999999),
        "train.eps": (train.eps, 1e-12, 1),
        "train.clip_norm": (train.clip_norm, 0, float("inf")),
        "train.contrastive_weight": (train.contrastive_weight, 0, 1e6),
        "train.loss_chunk": (train.loss_chunk, 0, train.batch_size),
        "train.mlm_weight": (train.mlm_weight, 0, 1e6),
        "train.unmasked_steps": (train.unmasked_steps, 0, train.steps),
        "train.unmasked_learning_rate": (train.unmasked_learning_rate, 0, 10),
        "train.unmasked_accumulate": (train.unmasked_accumulate, 1, train.batch_size),
        "train.log_every": (train.log_every, 1, 10**9),
        "train.save_every": (train.save_every, 1, 10**9),
        "train.keep_checkpoints": (train.keep_checkpoints, 1, 10**6),
        "mesh.fsdp": (mesh.fsdp, 1, 10**6),
    }
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:  # also catches nan
            faults.append(f"{name}={value} is outside {low}..{high}")
    for name, parts in (
        ("accumulate", train.accumulate),
        ("unmasked_accumulate", train.unmasked_accumulate),
        ("loss_chunk", train.loss_chunk),
    ):
        if parts and train.batch_size % parts:
            faults.append(f"train.{name}={parts} does not divide train.batch_size={train.batch_size}")
    folders, weights = data.folders, data.weights
    if weights and len(weights) != len(folders):
        faults.append(f"data.weights has {len(weights)} numbers for {len(folders)} folders of data.shards")
    if len(folders) > 1 and "" in folders:
        faults.append(f"data.shards={data.shards!r} names an empty folder between its commas")
    if len(set(folders)) < len(folders):
        faults.append(f"data.shards={data.shards!r} names a folder twice: give it a larger share by data.weights")
    if mesh.data != -1 and mesh.data < 1:
        faults.append(f"mesh.data={mesh.data} must be -1 (all devices) or at least 1")
    if train.mlm_weight and text.mask_ratio and not model.decoder_layers:
        faults.append("train.mlm_weight is not 0 but model.decoder_layers=0 builds no decoder: set one of them")
    if not (train.contrastive_weight or train.mlm_weight):
        faults.append("train.contrastive_weight and train.mlm_weight are both 0: nothing to learn")
    return faults


def check(config: ConfigDict | Mapping[str, Any]) -> RunConfig:
    """The frozen, checked form of a config tree.

    Raises:
      ConfigError: one message that lists every fault found.
    """
    faults: list[str] = []
    run = _build(RunConfig, config, "", faults)
    if not faults:
        faults = _range_faults(run)
    if faults:
        raise ConfigError("; ".join(faults))
    return run


def load(path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """A config file ("configs/x.py" or "configs/x.py:argument") with "a.b=value" overrides, checked.

    Raises:
      ConfigError: file missing or broken, unknown field, value of the wrong type or out of range.
    """
    return check(load_dict(path, overrides))
