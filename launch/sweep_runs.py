"""The runs of a sweep: which there are, where each lies, what each is scored on."""

import dataclasses
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.config import files as config_files
from harvest_jax.config import run as run_config
from harvest_jax.errors import ConfigError

from .scoring import Scoring

_LONGEST = 80  # characters of a folder's name before its digest


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
      id: digest of its complete config.
      overrides: field=value, as after --config.
      workdir: its folder.
      values: what the sweep itself set, by field.
      shards: that it trains on.
      seed: of its config.
    """

    id: str
    overrides: tuple[str, ...]
    workdir: Path
    values: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    shards: str = ""
    seed: int = 0

    def arguments(self, config: str) -> list[str]:
        """What `harvest train` is called with."""
        fields = [f"--config.{override}" for override in self.overrides]
        return ["--config", config, "--workdir", str(self.workdir), *fields]

    @property
    def complete(self) -> bool:
        """Whether the training ended."""
        return Workdir(self.workdir).exported


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What every run of a sweep is scored on when it has ended.

    Attributes:
      name: of its result file and its columns.
      config: of `harvest eval`.
      overrides: field=value.
    """

    name: str
    config: str
    overrides: tuple[str, ...]

    def of(self, run: Run) -> Scoring:
        """The evaluation of a run: on the run's shards if it names no data, with the run's seed if it names none."""
        fields = self.overrides
        own = ("data.shards=", "data.manifest=", "data.videos=")
        if run.shards and not any(field.startswith(own) for field in fields):
            fields = (f"data.shards={run.shards}", *fields)
        if not any(field.startswith("seed=") for field in fields):
            fields = (f"seed={run.seed}", *fields)
        return Scoring(self.config, Workdir(run.workdir).export, fields, run.workdir / "results" / f"{self.name}.json")


def expand(config: str, root: Path, name: str = "", common: Sequence[str] = ()) -> list[Run]:
    """The runs of a config's sweep, in its order, every one checked.

    Args:
      config: file, with its argument if it takes one ("configs/x.py:argument").
      root: the folder that holds the runs' folders.
      name: "" for the function `sweep`, else `sweep_<name>`. A second parameter of it gets the config with `common`.
      common: overrides of every run, field=value.

    Raises:
      ConfigError: no such sweep, an unknown field, a value that cannot be used, two runs that are the same.
    """
    runs: list[Run] = []
    calls: list[dict[str, Any]] = []
    function = _sweep_function(config, name)
    given = [config_files.load_dict(config, common)] if len(inspect.signature(function).parameters) > 1 else []
    function(lambda **values: calls.append(values), *given)
    if not calls:
        raise ConfigError(f"{config}: the sweep {name or 'sweep'} adds no run")
    for number, values in enumerate(calls, 1):
        overrides = (*common, *(f"{field}={_text(value)}" for field, value in values.items()))
        try:
            checked = run_config.load(config, overrides)
        except ConfigError as error:
            raise ConfigError(f"run {number} of the sweep ({_words(values)}): {error}") from error
        # Where measurements go besides the workdir makes no other run.
        fields = {name: value for name, value in checked.to_dict().items() if name != "log"}
        canonical = json.dumps(fields, sort_keys=True)
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:10]
        for earlier, run in enumerate(runs, 1):
            if run.id == digest:
                raise ConfigError(
                    f"runs {earlier} and {number} of the sweep are the same run "
                    f"({_words(calls[earlier - 1])} and {_words(values)} give one config)"
                )
        runs.append(Run(digest, overrides, folder_of(root, values, digest), values, checked.data.shards, checked.seed))
    return runs


def folder_of(root: Path, values: dict[str, Any], digest: str) -> Path:
    """A run's folder: what the sweep set in it, in short, and the begin of its digest.

    A folder of this digest that is there already is taken, whatever the rest of its name: an earlier version named
    folders by the digest alone, and another sweep with the same root may set other fields for the same config.
    """
    for folder in (root / digest, *sorted(root.glob(f"*-{digest[:6]}"))):
        if folder.is_dir():
            return folder
    words = [f"{field.rpartition('.')[2]}={_text(value)}" for field, value in values.items()]
    name = re.sub(r"[^A-Za-z0-9=.+-]+", "_", "_".join(words))[:_LONGEST].strip("._-")
    return root / (f"{name}-{digest[:6]}" if name else digest)


def evaluations(config: str) -> list[Evaluation]:
    """What a config's function `evaluate(add)` adds; [] without one.

    Raises:
      ConfigError: two of one name, a name that cannot be a file's, a value that cannot be used.
    """
    found: list[Evaluation] = []
    function = getattr(_module(config), "evaluate", None)
    if function is None:
        return []

    def add(name: str, config: str, **values: Any) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,60}", name) or name in {one.name for one in found}:
            raise ConfigError(f"evaluate: {name!r} names no result, or two: use letters, digits, _ and -")
        overrides = tuple(f"{field}={_text(value)}" for field, value in values.items())
        found.append(Evaluation(name, config, overrides))

    function(add)
    return found


def check_evaluations(scoring: Sequence[Evaluation], runs: Sequence[Run]) -> None:
    """Check the settings of all evaluations, in a process of its own: this one must not import JAX, because it forks.

    Raises:
      ConfigError: an evaluation's config is missing, or a field of it cannot be used.
    """
    first = {run.shards: run for run in reversed(runs)}.values()
    wanted = [(one.name, one.config, one.of(run).overrides) for one in scoring for run in first]
    if wanted:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            fault = pool.submit(evaluation_fault, wanted).result()
        if fault:
            raise ConfigError(fault)


def evaluation_fault(wanted: Sequence[tuple[str, str, tuple[str, ...]]]) -> str:
    """What is wrong with the first of (name, config, overrides) that `harvest eval` would refuse; "" if none is."""
    from harvest_jax.evaluate import evaluation

    for name, config, overrides in wanted:
        try:
            evaluation.check(config_files.load_dict(config, overrides, "evaluation"))
        except ConfigError as error:
            return f"evaluation {name!r} of the sweep: {error}"
    return ""


def _module(config: str) -> ModuleType:
    return config_files.load_module(config.partition(":")[0])


def _sweep_function(config: str, name: str) -> Callable[..., None]:
    file = config.partition(":")[0]
    wanted = f"sweep_{name}" if name else "sweep"
    module = _module(config)
    function = getattr(module, wanted, None)
    if not callable(function):
        found = sorted(key for key in vars(module) if key == "sweep" or key.startswith("sweep_"))
        raise ConfigError(f"{file} has no function {wanted}(add)" + (f"; it has {', '.join(found)}" if found else ""))
    result: Callable[..., None] = function
    return result


def _text(value: Any) -> str:
    """A value as `--config.field=` takes it: floats with all their digits, true and false in lower case."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    if isinstance(value, int | float | tuple | list):
        return repr(value)
    raise ConfigError(f"a sweep's value must be a number, a string, a bool or a tuple of them, not {value!r}")


def _words(values: dict[str, Any]) -> str:
    return ", ".join(f"{field}={value}" for field, value in values.items()) or "no values"
