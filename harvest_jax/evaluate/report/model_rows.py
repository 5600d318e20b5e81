"""The rows of a table: models, runs of one configuration together, image models first."""

import dataclasses
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from harvest_jax.evaluate.report.result_files import ResultFile
from harvest_jax.evaluate.result.protocol import digest
from harvest_jax.terminal import printable

_PLACES = ("workdir", "digest", "config")  # of `origin`: they differ between runs of one configuration
_NAME_LENGTH = 60


@dataclasses.dataclass(frozen=True)
class ModelRow:
    """One model, or several runs of one configuration.

    Attributes:
      label: for a reader.
      weights: sha256 of the model of each run.
      is_image_model: it averages the embeddings of single frames.
      average_of_frames: the row shows what its results say of the average of single frames, not of the model itself.
    """

    label: str
    weights: tuple[str, ...]
    is_image_model: bool
    average_of_frames: bool = False


def model_rows(results: Sequence[ResultFile]) -> list[ModelRow]:
    """The rows: image models, then averages of frames, then the others, each in the order of the results.

    Runs are of one configuration if the model's description, the run's config except its seed, the step and everything
    else that `origin` says (such as a mixture's alpha) are equal. Where a model does not say what its run was, it has a
    row of its own.
    """
    of_weights: dict[str, list[ResultFile]] = {}
    for result in results:
        of_weights.setdefault(result.weights, []).append(result)
    runs: dict[str, list[ResultFile]] = {}
    averaged: set[str] = set()
    for weights, own in of_weights.items():
        # The export of a run and its training folder are the same model, and one of them may say more.
        told = next((result for result in own if _run_config(result) is not None), own[0])
        key = _configuration(told)
        runs.setdefault(key, []).append(told)
        if any("frame_average" in result.content["metrics"] for result in own):
            averaged.add(weights)
    labels = _labels(list(runs.values()))
    images: list[ModelRow] = []
    averages: list[ModelRow] = []
    others: list[ModelRow] = []
    for label, members in zip(labels, runs.values(), strict=True):
        weights_of = tuple(result.weights for result in members)
        row = ModelRow(label, weights_of, is_image_model(members[0]))
        (images if row.is_image_model else others).append(row)
        if not row.is_image_model and averaged & set(weights_of):
            averages.append(dataclasses.replace(row, label=f"{label}: average of its frames", average_of_frames=True))
    return [*images, *averages, *others]


def is_image_model(result: ResultFile) -> bool:
    """Whether the model embeds frames one by one."""
    video = result.model["config"].get("video")
    return isinstance(video, dict) and video.get("num_frames") == 1


def _run_config(result: ResultFile) -> dict[str, Any] | None:
    config = result.model["origin"].get("config")
    return config if isinstance(config, dict) else None


def _configuration(result: ResultFile) -> str:
    config, origin = _run_config(result), result.model["origin"]
    if config is None or "seed" not in config:
        return result.weights
    of_run = {name: value for name, value in config.items() if name != "seed"}
    return digest([result.model["config"], of_run, {k: v for k, v in origin.items() if k not in _PLACES}])


def _labels(runs: list[list[ResultFile]]) -> list[str]:
    """A label for each row; those that would be alike get the first letters of the digest."""
    labels = [_label(members) for members in runs]
    return [
        label if labels.count(label) == 1 else f"{label} ({members[0].weights[:8]})"
        for label, members in zip(labels, runs, strict=True)
    ]


def _label(members: list[ResultFile]) -> str:
    model = members[0].model
    name, origin = str(model["name"]), model["origin"]
    shown = "/".join(PurePath(name).parts[-3:]) or name
    facts = []
    step = origin.get("workdir_step")
    if isinstance(step, int) and not name.endswith(f"@{step}"):
        facts.append(f"step {step:,}")
    mixed = origin.get("mixed")
    if isinstance(mixed, dict) and isinstance(mixed.get("alpha"), int | float):
        first, second = (PurePath(str(mixed.get(which, "?"))).name for which in ("first", "second"))
        facts.append(f"mix of {first} and {second}, alpha {mixed['alpha']:g}")
    if is_image_model(members[0]):
        facts.append("image model, average of frames")
    if len(members) > 1:
        seeds = sorted({str((_run_config(result) or {}).get("seed")) for result in members})
        facts.append(f"{len(members)} runs, seeds {', '.join(seeds)}")
    return printable(f"{printable(shown, _NAME_LENGTH)}{', ' if facts else ''}{', '.join(facts)}", 160)
