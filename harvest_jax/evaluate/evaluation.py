"""One evaluation: the task that a config names, its checked settings, and its result."""

import dataclasses
import importlib
import pkgutil
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

from ml_collections import ConfigDict

from harvest_jax.api import Model
from harvest_jax.config.fields import build
from harvest_jax.errors import ConfigError
from harvest_jax.evaluate import tasks
from harvest_jax.evaluate.clips.embedding_store import EmbeddingStore, computed_by
from harvest_jax.evaluate.clips.embeddings import ModelWithStore, VideoTextModel, is_image_model
from harvest_jax.evaluate.clips.evaluation_set import EvaluationSet
from harvest_jax.evaluate.result import provenance
from harvest_jax.evaluate.result.protocol import protocol
from harvest_jax.evaluate.result.results import EvaluationResult, TaskOutput, tie_spread
from harvest_jax.evaluate.settings import MAX_FRAMES, TaskSettings, too_many_frames
from harvest_jax.terminal import Progress

# Fields of tasks that name a file: where one is empty, the file of this purpose in a benchmark's annotations is taken.
OF_ANNOTATIONS = ("answers", "classes")
MAX_TIE_SPREAD = 0.1  # points between the best and the worst order of ties above which a score needs a warning
_EQUAL = "equal scores leave the figures open"


@runtime_checkable
class Task(Protocol):
    """A module of `tasks`."""

    Settings: type[TaskSettings]

    def run(self, model: VideoTextModel, data: EvaluationSet, settings: Any, progress: Progress) -> TaskOutput:
        """The scores."""

    def table(self, metrics: Mapping[str, Any]) -> list[str]:
        """The lines that show the scores on a terminal."""


def task_names() -> list[str]:
    """The names that `config.task` can have: the modules of `tasks`."""
    return sorted(module.name for module in pkgutil.iter_modules(tasks.__path__))


def load_task(name: str) -> Task:
    """The module of a task; `name` is one of `task_names()`."""
    return cast(Task, importlib.import_module(f"{tasks.__name__}.{name}"))


def check(config: Mapping[str, Any] | ConfigDict) -> TaskSettings:
    """The checked settings of an evaluation config.

    Raises:
      ConfigError: one message that lists every fault found.
    """
    name = config.get("task")
    if name not in task_names():
        fault = f"task={name!r} must be one of {', '.join(task_names())}" if name else "the config has no task"
        raise ConfigError(f"{fault}: give a config of configs/eval/, for example --config eval/retrieval")
    settings = build(load_task(name).Settings, config)
    faults = settings.contradictions()
    if faults:
        raise ConfigError("; ".join(faults))
    return settings


def evaluate(
    settings: TaskSettings,
    model: VideoTextModel,
    data: EvaluationSet,
    progress: Progress,
    command: Sequence[str] = (),
    store: EmbeddingStore | None = None,
) -> EvaluationResult:
    """Score the model.

    Args:
      settings: of `check`.
      model: of `harvest_jax.load`.
      data: of `evaluation_set.open_set`.
      progress: called after each clip.
      command: the words of the command line, for the result.
      store: of this model; embeddings that it has are not computed, others are added.

    Raises:
      ConfigError: the settings do not fit the model, or a file of the store cannot be read.
      DataError: the set lacks a column, a row cannot be used, or no video could be read.
      NonFiniteError: the model's output is not finite.
    """
    begun = time.monotonic()
    _check_frames(settings, model)
    given: dict[str, Any] = {
        purpose: str(data.files[purpose])
        for purpose in OF_ANNOTATIONS
        if purpose in data.files and getattr(settings, purpose, None) == ""
    }
    settings = dataclasses.replace(settings, frames=settings.frames or model.num_frames, **given)
    if settings.keep_ratio < 1.0:
        model = cast(Model, model).keeping(settings.keep_ratio, settings.seed)
    if store is not None:
        store.begin()
        model = ModelWithStore(model, store)
    output = load_task(settings.task).run(model, data, settings, progress)
    missing = [
        {"video": data.clips[number].video, "reason": reason} for number, reason in sorted(output.reasons.items())
    ]
    return EvaluationResult(
        task=settings.task,
        protocol=protocol(settings, data, output.content, output.protocol),
        model=provenance.model_facts(model),
        data={"name": data.name, "kind": data.kind, "split": data.split},
        inputs=provenance.file_facts({**data.files, **output.files}) | {"distinct_frames": data.distinct_frames()},
        texts=output.texts,
        n_expected=len(output.missing),
        n_missing=int(output.missing.sum()),
        missing=missing,
        metrics=output.metrics,
        faults=_faults(output, data),
        notes=_notes(output, data, settings) + _store_notes(store),
        run=provenance.run_facts(command, time.monotonic() - begun, settings.seed)
        | ({} if store is None else {"store": store.facts()}),
        queries=output.queries,
    )


def _check_frames(settings: TaskSettings, model: VideoTextModel) -> None:
    if settings.frames > model.num_frames and not is_image_model(model):
        raise ConfigError(f"frames={settings.frames}, but this model takes {model.num_frames} frames a clip")
    frames = settings.frames or model.num_frames
    if frames * settings.views * settings.crops > MAX_FRAMES:
        raise ConfigError(too_many_frames(frames, settings.views, settings.crops))
    if settings.crops > 1 and (settings.resize or model.config.preprocessing.resize) == "squash":
        raise ConfigError(
            f"crops={settings.crops} cut pictures, and this model squashes them: give --config.resize=crop, or crops=1"
        )


def _notes(output: TaskOutput, data: EvaluationSet, settings: TaskSettings) -> list[str]:
    notes = list(data.notes)
    if output.texts.cut:
        notes.append(
            f"{output.texts.cut:,} of {output.texts.n:,} texts are longer than the {output.texts.length} tokens that "
            "are read, and were cut"
        )
    spread = _open_ties(output)
    if MAX_TIE_SPREAD < spread <= (output.data_ties or 0.0) + MAX_TIE_SPREAD:
        notes.append(f"{_EQUAL} by up to {spread:.2f} points: the set has equal texts or answers")
    frames = settings.frames * settings.views
    fewer = sum(count for distinct, count in data.distinct.items() if distinct < frames)
    if fewer and settings.sampling == "fps":
        rate = f"at {settings.sampling_fps:g} a second"
        notes.append(f"{fewer:,} of {len(data.clips):,} clips have fewer than {frames} different frames {rate}")
    elif fewer:
        notes.append(f"{fewer:,} of {len(data.clips):,} clips have fewer than {frames} different frames: some repeat")
    return notes


def _store_notes(store: EmbeddingStore | None) -> list[str]:
    found = {by for facts in (store.facts() if store else {}).values() for by in facts["store_computed_on"]}
    others = sorted(found - {computed_by()})
    if not others:
        return []
    return [f"embeddings from the store were computed on {'; '.join(others)}, and not here: they differ by rounding"]


def _faults(output: TaskOutput, data: EvaluationSet) -> list[str]:
    warnings = []
    if output.missing.any():
        counted = f"{int(output.missing.sum())} of {len(output.missing)} counted as wrong"
        warnings.append(f"{counted}: {len(output.reasons)} videos were not read")
    if data.unstored:
        warnings.append(
            f"{data.unstored} rows were rejected when the shards were made and are not counted: give data.manifest too"
        )
    spread = _open_ties(output)
    if spread > (output.data_ties or 0.0) + MAX_TIE_SPREAD:
        warnings.append(f"{_EQUAL} by up to {spread:.2f} points (optimistic, pessimistic)")
    return warnings


def _open_ties(output: TaskOutput) -> float:
    """Points between the best and the worst order of ties; 0 where ties are answers."""
    return 0.0 if output.data_ties is None else tie_spread(output.metrics)
