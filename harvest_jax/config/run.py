"""The fields of a training config, checked: a ConfigDict in, frozen dataclasses out.

Types, ranges and choices stand in the annotations here. `configs/base.py` explains to users what each field means. All
faults of a config are reported together.
"""

import dataclasses
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from ml_collections import ConfigDict

from harvest_jax.config.fields import Range, build
from harvest_jax.config.files import apply_overrides, check_paths, config_file, load_dict, set_fields
from harvest_jax.errors import ConfigError

Size = Literal["demo", "world", "B/32", "B/16", "L/14", "L/14@336", "H/14"]
SINKS = ("auto", "tensorboard", "wandb", "mlflow", "trackio")
SIZES: tuple[str, ...] = get_args(Size)
_Steps = Annotated[int, Range(1, 10**9)]

# Fields that are younger than version 0.1.0, with the values that mean what older versions did. A run that began
# without a field goes on with its old value, whatever its default is by now. Every new field that distinguishes runs
# (train/resume_fields.py) needs a line here.
OLD_VALUES: dict[str, Any] = {
    "train.decay": "cosine",
    "data.weights": [],
    "objective.name": "post_pretraining",
}


@dataclasses.dataclass(frozen=True)
class ModelFields:
    """`config.model`."""

    size: Size
    num_frames: Annotated[int, Range(1, 1024)]
    keep_ratio: Annotated[float, Range(0.02, 1)]
    drop_scope: Literal["clip", "frame", "tube", "motion"]
    temporal_init: Literal["zeros", "ramp"]
    decoder_layers: Annotated[int, Range(0, 64)]
    dtype: Literal["float32", "bfloat16"]
    attention: Literal["auto", "xla", "cudnn"]
    remat: Literal["none", "dots", "full"]
    init_from: str


@dataclasses.dataclass(frozen=True)
class TextFields:
    """`config.text`."""

    length: Annotated[int, Range(3, 1024)]
    mask_ratio: Annotated[float, Range(0, 1)]
    contrastive: Literal["masked", "clean"]


@dataclasses.dataclass(frozen=True)
class DataFields:
    """`config.data`."""

    shards: str
    weights: tuple[Annotated[float, Range(1e-9, 1e9)], ...]
    split: str
    sampling: Literal["random", "middle"]
    crop: Literal["random", "center"]
    min_scale: Annotated[float, Range(0.01, 1)]
    flip: bool
    workers: Annotated[int, Range(-1, 1024)]
    prefetch: Annotated[int, Range(1, 1024)]
    bad_records: Annotated[int, Range(0, 10**9)]

    @property
    def folders(self) -> tuple[str, ...]:
        """The shard folders that `shards` names."""
        return tuple(folder.strip() for folder in self.shards.split(","))


@dataclasses.dataclass(frozen=True)
class TrainFields:
    """`config.train`."""

    steps: _Steps
    batch_size: Annotated[int, Range(1, 10**7)]
    accumulate: Annotated[int, Range(1, 10**7)]
    learning_rate: Annotated[float, Range(0, 10)]
    warmup_steps: Annotated[int, Range(0, 10**9)]
    weight_decay: Annotated[float, Range(0, 10)]
    b1: Annotated[float, Range(0, 0.9999999)]
    b2: Annotated[float, Range(0, 0.9999999)]
    eps: Annotated[float, Range(1e-12, 1)]
    clip_norm: Annotated[float, Range(0)]
    contrastive_loss: Literal["softmax", "sigmoid"]
    contrastive_weight: Annotated[float, Range(0, 1e6)]
    loss_chunk: Annotated[int, Range(0, 10**7)]
    mlm_weight: Annotated[float, Range(0, 1e6)]
    unmasked_steps: Annotated[int, Range(0, 10**9)]
    unmasked_learning_rate: Annotated[float, Range(0, 10)]
    unmasked_accumulate: Annotated[int, Range(1, 10**7)]
    lr_multipliers: tuple[tuple[str, Annotated[float, Range(0, sys.float_info.max)]], ...]
    log_every: _Steps
    save_every: _Steps
    keep_checkpoints: Annotated[int, Range(1, 10**6)]
    decay: Literal["cosine", "linear"] = "cosine"
    keep_every: Annotated[int, Range(0, 10**9)] = 0


@dataclasses.dataclass(frozen=True)
class ObjectiveFields:
    """`config.objective`."""

    name: Literal["post_pretraining", "classification", "videoqa"] = "post_pretraining"
    head: Literal["linear", "attentive"] = "linear"
    label_column: str = "label"
    classes: str = ""
    max_classes: Annotated[int, Range(0, 10**6)] = 0
    prompt: str = "Question: {question} Answer: {mask}"
    answer_from: Literal["head", "mask"] = "head"
    dropout: Annotated[float, Range(0, 0.99)] = 0.5


@dataclasses.dataclass(frozen=True)
class EvalFields:
    """`config.eval`: evaluations while the run trains."""

    every: Annotated[int, Range(0, 10**9)] = 0
    unit: Literal["steps", "epochs"] = "steps"
    config: str | tuple[str, ...] = ""
    metric: str = ""
    export: Literal["last", "best"] = "last"
    allow_missing: bool = False

    @property
    def configs(self) -> tuple[str, ...]:
        """The evaluations that `config` names, each as the words of a `harvest eval` command."""
        return (self.config,) if isinstance(self.config, str) else self.config


@dataclasses.dataclass(frozen=True)
class LogFields:
    """`config.log`."""

    sinks: str = "auto"


@dataclasses.dataclass(frozen=True)
class MeshFields:
    """`config.mesh`."""

    dcn_data: Annotated[int, Range(-1, 10**6)]
    data: Annotated[int, Range(-1, 10**6)]
    fsdp: Annotated[int, Range(1, 10**6)]


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A whole run, checked."""

    seed: Annotated[int, Range(0, 2**31 - 1)]
    distributed: bool
    model: ModelFields
    text: TextFields
    data: DataFields
    train: TrainFields
    mesh: MeshFields
    objective: ObjectiveFields = ObjectiveFields()
    eval: EvalFields = EvalFields()
    log: LogFields = LogFields()

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict for JSON (tuples become lists there)."""
        return dataclasses.asdict(self)


def _contradictions(config: RunConfig) -> list[str]:
    """What is wrong between fields whose values are each valid."""
    model, text, data, train, mesh = config.model, config.text, config.data, config.train, config.mesh
    faults = []
    for name in ("accumulate", "unmasked_accumulate", "loss_chunk"):
        pieces = getattr(train, name)
        if pieces and train.batch_size % pieces:
            faults.append(f"train.{name}={pieces} does not divide train.batch_size={train.batch_size}")
    if train.keep_every % train.save_every:
        faults.append(
            f"train.keep_every={train.keep_every} is not a multiple of train.save_every={train.save_every}: only "
            "checkpoints that are saved can be kept"
        )
    if train.unmasked_steps > train.steps:
        faults.append(f"train.unmasked_steps={train.unmasked_steps} exceeds train.steps={train.steps}")
    for pattern, _ in train.lr_multipliers:
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            faults.append(f"train.lr_multipliers: {pattern!r} is not a regular expression: {error}")
    folders, weights = data.folders, data.weights
    if weights and len(weights) != len(folders):
        faults.append(f"data.weights has {len(weights)} numbers for {len(folders)} folders of data.shards")
    if len(folders) > 1 and "" in folders:
        faults.append(f"data.shards={data.shards!r} names an empty folder between its commas")
    if len(set(folders)) < len(folders):
        faults.append(f"data.shards={data.shards!r} names a folder twice: give it a larger share with data.weights")
    if mesh.data == 0:
        faults.append("mesh.data=0 must be -1 (all devices) or at least 1")
    if mesh.dcn_data == 0:
        faults.append("mesh.dcn_data=0 must be -1 (the slices of the job) or at least 1")
    faults += _eval_contradictions(config.eval)
    unknown = {name.strip() for name in config.log.sinks.split(",")} - {*SINKS, ""}
    if unknown:
        faults.append(f"log.sinks names {', '.join(sorted(unknown))!r}: these are known: {', '.join(SINKS)}")
    if config.objective.name != "post_pretraining":
        return faults + _objective_contradictions(config)
    if train.mlm_weight and text.mask_ratio and not model.decoder_layers:
        faults.append(
            "train.mlm_weight is not 0 but model.decoder_layers=0 builds no decoder: "
            "set train.mlm_weight=0 or model.decoder_layers=4"
        )
    if not (train.contrastive_weight or train.mlm_weight):
        faults.append("train.contrastive_weight and train.mlm_weight are both 0: there is no loss to train on")
    return faults


def _objective_contradictions(config: RunConfig) -> list[str]:
    """The same for an objective that trains on labels or questions."""
    objective, faults = config.objective, []
    if objective.name == "videoqa" and not config.model.decoder_layers:
        faults.append("objective.name=videoqa reads the decoder, but model.decoder_layers=0 builds none: set it to 4")
    if objective.name == "classification" and not objective.label_column:
        faults.append("objective.label_column is empty: name the column of the labels")
    if objective.name == "classification" and objective.max_classes:
        faults.append("objective.max_classes is for answers (objective.name=videoqa), not for labels")
    return faults


def _eval_contradictions(fields: EvalFields) -> list[str]:
    """The same for the evaluations of the run."""
    if not fields.every:
        given = [name for name in ("config", "metric") if getattr(fields, name)]
        given += ["export=best"] if fields.export == "best" else []
        return [f"eval.{name} has no use with eval.every=0: say how often to evaluate" for name in given]
    faults = []
    if not all(text.strip() for text in fields.configs) or not fields.configs:
        faults.append("eval.config is empty: name what is evaluated, as after `harvest eval --config`")
    if fields.export == "best" and not fields.metric:
        faults.append("eval.export=best needs eval.metric: the score that says which checkpoint is the best")
    return faults


def check(config: ConfigDict | Mapping[str, Any]) -> RunConfig:
    """The frozen, checked form of a config tree.

    Raises:
      ConfigError: one message that lists every fault found.
    """
    run = build(RunConfig, config)
    faults = _contradictions(run)
    if faults:
        raise ConfigError("; ".join(faults))
    return run


def load(path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """A config file ("configs/x.py" or "configs/x.py:argument") with "a.b=value" overrides, checked.

    Raises:
      ConfigError: file missing or broken, unknown field, value of the wrong type or out of range.
    """
    return check(load_dict(path, overrides, "training"))


def load_recorded(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The config that a run wrote (`RunConfig.to_dict` as JSON) with "a.b=value" overrides, checked.

    A field that is younger than the run has its value of `OLD_VALUES`, or the default of `configs/base.py`. So has
    `distributed`, which is not the run's: launchers set it.

    Raises:
      ConfigError: the file is missing or damaged, or a value cannot be used any more.
    """
    try:
        values = dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read as the config of a run: {error}; give --config") from error
    return recorded(values, overrides)


def recorded(values: dict[str, Any], overrides: Sequence[str] = ()) -> RunConfig:
    """The same for what has been read.

    Raises:
      ConfigError: a value cannot be used any more.
    """
    config = load_dict(str(config_file("base.py")), (), "training")
    for name, value in OLD_VALUES.items():
        group, field = name.split(".")
        set_fields(config, {group: {field: value}})
    set_fields(config, {name: value for name, value in values.items() if name != "distributed"})
    apply_overrides(config, overrides)
    check_paths(config)
    return check(config)
