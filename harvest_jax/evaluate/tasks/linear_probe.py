"""Classification by a linear classifier, trained on embeddings of a labelled training set; the model is frozen."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from harvest_jax.errors import DataError
from harvest_jax.evaluate import tables
from harvest_jax.evaluate.clips.embeddings import VideoEmbeddings, VideoTextModel, embed_videos
from harvest_jax.evaluate.clips.evaluation_set import EvaluationSet, open_set
from harvest_jax.evaluate.result.protocol import content_digest
from harvest_jax.evaluate.result.results import TaskOutput, TextFacts
from harvest_jax.evaluate.scores import linear_probe
from harvest_jax.evaluate.settings import DataSettings, TaskSettings
from harvest_jax.evaluate.tasks import zero_shot
from harvest_jax.input.class_names import class_text, label_numbers
from harvest_jax.terminal import Progress


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """`config.train`: a manifest, shards, or both, as `config.data`."""

    manifest: str
    root: str
    shards: str
    split: str
    skip_missing: bool


@dataclasses.dataclass(frozen=True)
class Settings(TaskSettings):
    """`configs/eval/linear_probe.py`."""

    label_column: str
    train: TrainSettings
    weight_decays: tuple[float, ...]

    def contradictions(self) -> list[str]:
        """Also checks the training set and the decays."""
        faults = super().contradictions()
        if not self.label_column:
            faults.append("label_column is empty: name the column of the labels")
        if not (self.train.manifest or self.train.shards):
            faults.append("set train.manifest (a table of labelled videos), train.shards, or both")
        if self.train.shards and not self.train.split:
            faults.append("train.split is empty: name the split of the shards")
        if not self.weight_decays or not all(0 < decay < float("inf") for decay in self.weight_decays):
            faults.append(f"weight_decays={self.weight_decays}: give one or several numbers above 0")
        return faults


def run(model: VideoTextModel, data: EvaluationSet, settings: Settings, progress: Progress) -> TaskOutput:
    """Train the classifier, and classify every row's clip.

    Raises:
      DataError: a row of either set has no label, a label is not one of the training set, a training video is missing,
        or no video could be read.
      NonFiniteError: an embedding is zero or not finite.
    """
    train = open_set(
        DataSettings(
            settings.train.manifest,
            settings.train.root,
            settings.train.shards,
            settings.train.split,
            settings.data.workers,
        )
    )
    own = train.column(settings.label_column)
    classes = sorted(set(map(class_text, own)))
    labels = data.column(settings.label_column)
    label_numbers(labels, zero_shot.row_names(data), classes)  # a wrong label is found before the work
    of_clip = _labels_of_clips(train, label_numbers(own, zero_shot.row_names(train), classes))
    if not settings.train.skip_missing:
        _check_there(train, train.reader.absent())
    trained = embed_videos(model, train, settings, progress)
    if not settings.train.skip_missing:
        _check_there(train, trained.reasons)
    video = embed_videos(model, data, settings, progress)
    present = np.flatnonzero(~trained.missing)
    keys = [json.dumps(train.identity(int(clip)), sort_keys=True) for clip in present]
    decay, held = _decay(trained.values[present], of_clip[present], len(classes), keys, settings)
    probe = linear_probe.fit(trained.values[present], of_clip[present], len(classes), decay)
    scores = np.zeros((len(data.clips), len(classes)), np.float32)
    scores[~video.missing] = probe.scores(video.values[~video.missing])
    protocol = {
        "classes_from": "training set",
        "probe": "logistic regression on centred unit embeddings, L2",
        "weight_decays": sorted(settings.weight_decays),
        "held_out": linear_probe.HELD_OUT if len(settings.weight_decays) > 1 else 0.0,
        "train": {
            "clips": len(present),
            "sha256": content_digest([[key, classes[of_clip[clip]]] for key, clip in zip(keys, present, strict=True)]),
            "frame_source": train.reader.described(),
        },
    }
    texts = TextFacts(0, model.config.text.context_length, 0)
    files = {f"train_{purpose}": path for purpose, path in train.files.items()}
    found = zero_shot.Scores(scores, video.missing, video.reasons, classes, classes, protocol, texts, files)
    output = zero_shot.classified(found, data, labels)
    more = {"weight_decay": decay, "train_clips": len(present), "seen_in_training": _seen(trained, video)}
    return dataclasses.replace(output, metrics=output.metrics | more | held)


def table(metrics: Mapping[str, Any]) -> list[str]:
    """The scores over all classes, and what was chosen on the clips held out."""
    shown = {name: value for name, value in metrics.items() if name != "weight_decay"}
    return [*tables.number_lines(shown), f"{'weight_decay':<24}{metrics['weight_decay']:>10g}"]


def _labels_of_clips(train: EvaluationSet, numbers: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " clips"]:
    """The class of each clip.

    Raises:
      DataError: rows of one clip have several classes.
    """
    found: dict[int, int] = {}
    for sample, number in zip(train.samples, numbers.tolist(), strict=True):
        if found.setdefault(sample.clip, number) != number:
            raise DataError(f"{train.name}: {sample.id} has a label that another row of its video has not: give one")
    return np.array([found[clip] for clip in range(len(train.clips))], np.int64)


def _check_there(train: EvaluationSet, missing: Mapping[int, str]) -> None:
    if missing:
        number, reason = next(iter(sorted(missing.items())))
        raise DataError(
            f"{len(missing):,} of the {len(train.clips):,} training videos of {train.name} cannot be read, the first: "
            f"{train.clips[number].video} ({reason}): correct train.root, or give --config.train.skip_missing=True"
        )


def _decay(
    embeddings: Any, labels: Int[np.ndarray, " n"], classes: int, keys: list[str], settings: Settings
) -> tuple[float, dict[str, Any]]:
    """The weight decay, and the metrics of how it was chosen.

    Raises:
      DataError: there is a choice, and no class has two clips.
    """
    if len(settings.weight_decays) == 1:
        return settings.weight_decays[0], {}
    held = linear_probe.held_out(labels, [hashlib.sha256(key.encode()).hexdigest() for key in keys])
    if not held.any():
        raise DataError(
            "no class has two training videos, so that none can be held out to choose the weight decay: "
            "give one, as --config.weight_decays='(0.01,)'"
        )
    decay, accuracy = linear_probe.choose_decay(embeddings, labels, classes, settings.weight_decays, held)
    return decay, {"held_out_top1": accuracy, "held_out_clips": int(held.sum())}


def _seen(trained: VideoEmbeddings, video: VideoEmbeddings) -> int:
    """Clips of the set whose embedding is in every bit that of a training clip: most likely the same clip."""
    known = {row.tobytes() for row in trained.values[~trained.missing]}
    return sum(row.tobytes() in known for row in video.values[~video.missing])
