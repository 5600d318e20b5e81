"""The evaluations that a run's config names, checked before its first step, and their scores of a model."""

import copy
import dataclasses
import logging
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from harvest_jax.api import Model
from harvest_jax.checkpoint.scores import StepScores
from harvest_jax.config.files import load_dict
from harvest_jax.config.run import EvalFields, RunConfig
from harvest_jax.errors import ConfigError, DataError, HarvestError
from harvest_jax.evaluate import evaluation
from harvest_jax.evaluate.clips.evaluation_set import EvaluationSet, check_all_there, open_set
from harvest_jax.evaluate.settings import TaskSettings
from harvest_jax.model.config import HarvestConfig
from harvest_jax.model.harvest import Params
from harvest_jax.terminal import printable
from harvest_jax.train.model_of_run import tokenizer_of_run
from harvest_jax.weights.mistaken_path import check_may_be_config

log = logging.getLogger(__name__)

OVERRIDE = "--config."  # begins a field's word on a command line; it may be left out here
BOUNDS = ("optimistic", "pessimistic")  # groups that say what ties leave open: not for the log
LOWER_IS_BETTER = ("MedR", "MnR", "MeanR", "MSE", "MSE_expectation")  # last parts of scores' names


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run.

    Attributes:
      name: of its config, with a number from the second one of this name on; scores' names begin with it.
      settings: checked.
      data: opened.
    """

    name: str
    settings: TaskSettings
    data: EvaluationSet


class RunScorer:
    """Evaluates the models of a run, at one step after the other; a `train.scoring.Scorer`."""

    def __init__(self, evaluations: tuple[Evaluation, ...], run: RunConfig, workdir: Path):
        """Models are named after the workdir."""
        self._evaluations = evaluations
        self._run = run
        self._workdir = workdir
        self._model: Model | None = None  # its compiled functions; no parameters are held between evaluations

    def __call__(self, config: HarvestConfig, params: Params, step: int, pulse: Callable[[], None]) -> StepScores:
        """See `Scorer`.

        Raises:
          ConfigError: an evaluation does not fit the model, or none of them has the score `eval.metric`.
          DataError: the model lacks what an evaluation needs, or the data cannot be used.
        """
        if self._model is None:
            self._model = Model(config, {}, "", tokenizer=tokenizer_of_run(self._run, config, self._workdir))
        model = copy.copy(self._model)  # it has computed nothing of its parameters, such as their digest
        model.params, model.name = jax.device_put(params), f"{self._workdir}@{step}"
        values: dict[str, float] = {}
        protocols = {}
        for one in self._evaluations:
            result = evaluation.evaluate(one.settings, model, one.data, lambda done, total, words: pulse())
            if one.settings.strict and result.faults:
                raise DataError(f"eval.config, {one.name}: strict=True: {'; '.join(result.faults)}")
            for fault in result.faults:
                log.warning("evaluation %s of step %d: %s", one.name, step, fault)
            values |= flat_scores(result.metrics, one.name)
            protocols[one.name] = result.protocol_hash
        metric = full_name(self._run.eval.metric, tuple(protocols), values)
        return StepScores(values, protocols, metric, metric.rpartition("/")[2] in LOWER_IS_BETTER)


def run_scorer(run: RunConfig, workdir: Path) -> RunScorer | None:
    """What evaluates the models of a run; None if its config evaluates nothing. No video is decoded.

    Raises:
      ConfigError, DataError: an evaluation of `eval.config` cannot be used, or videos are missing.
    """
    return RunScorer(evaluations(run.eval), run, workdir) if run.eval.every else None


def evaluations(fields: EvalFields) -> tuple[Evaluation, ...]:
    """The evaluations of `config.eval`, checked and with their sets opened.

    Raises:
      ConfigError, DataError: one of them cannot be used: its words, and why.
    """
    found: list[Evaluation] = []
    for text in fields.configs:
        try:
            name, settings = read_words(text)
            data = open_set(settings.data, settings.given_files)
            if not fields.allow_missing:
                check_all_there(data, data.reader.absent())
        except HarvestError as error:
            message = str(error).replace("give --allow_missing", "set eval.allow_missing=True")
            raise type(error)(f"eval.config={printable(text, 60)!r}: {message}") from error
        same = sum(one.name.partition("-")[0] == name for one in found)
        found.append(Evaluation(f"{name}-{same + 1}" if same else name, settings, data))
    return tuple(found)


def read_words(text: str) -> tuple[str, TaskSettings]:
    """The name of an evaluation, and its settings, from the words that would follow `harvest eval --config`.

    Raises:
      ConfigError: there is no such config, or a field cannot be used.
    """
    try:
        path, *overrides = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"it must be a config's name and FIELD=VALUE words, as in a shell ({error})") from error
    check_may_be_config(path)
    config = load_dict(path, [word.removeprefix(OVERRIDE) for word in overrides], "evaluation")
    return Path(path.partition(":")[0]).stem, evaluation.check(config)


def full_name(metric: str, names: tuple[str, ...], values: dict[str, float]) -> str:
    """The whole name of a score; with a single evaluation the part after its name is enough. "" stays "".

    Raises:
      ConfigError: there is no such score; the message lists those that there are.
    """
    if not metric or metric in values:
        return metric
    if len(names) == 1 and f"{names[0]}/{metric}" in values:
        return f"{names[0]}/{metric}"
    known = [name.removeprefix(f"{names[0]}/") for name in values] if len(names) == 1 else list(values)
    raise ConfigError(f"eval.metric={printable(metric)} is no score of eval.config; these are: {', '.join(known)}")


def flat_scores(metrics: Any, prefix: str = "") -> dict[str, float]:
    """The numbers of nested metrics by their paths: {"t2v": {"R@1": 40.0}} -> {"t2v/R@1": 40.0}."""
    if isinstance(metrics, dict):
        kept = {name: value for name, value in metrics.items() if name not in BOUNDS}
        pairs = [flat_scores(value, f"{prefix}/{name}" if prefix else str(name)) for name, value in kept.items()]
        return {name: value for found in pairs for name, value in found.items()}
    if isinstance(metrics, bool) or not isinstance(metrics, int | float) or not math.isfinite(metrics):
        return {}
    return {prefix: float(metrics)}
