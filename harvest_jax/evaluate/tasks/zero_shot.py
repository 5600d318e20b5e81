"""Classification without training on the classes: by the class name that is most similar to the video.

With `answer_from=head` it is the classification by a head that was fine-tuned.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from harvest_jax.config.fields import Range
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.evaluate import prompts, tables
from harvest_jax.evaluate.clips.embeddings import (
    VideoTextModel,
    embed_in_ways,
    embed_texts,
    embed_videos,
    text_facts,
)
from harvest_jax.evaluate.clips.evaluation_set import EvaluationSet
from harvest_jax.evaluate.half_classes import half_classes
from harvest_jax.evaluate.result.protocol import digest
from harvest_jax.evaluate.result.queries import Queries
from harvest_jax.evaluate.result.results import TaskOutput, TextFacts
from harvest_jax.evaluate.scores import ranking
from harvest_jax.evaluate.settings import TaskSettings
from harvest_jax.evaluate.trained_head import head_of
from harvest_jax.input.class_names import class_text, label_numbers, read_classes
from harvest_jax.terminal import Progress

CLASS_LOGITS = "class_logits"  # name of the scores of a head as a way to look at a clip
Ensemble = Literal["mean_vector", "mean_cosine", "mean_probability"]


@dataclasses.dataclass(frozen=True)
class Settings(TaskSettings):
    """`configs/eval/zero_shot.py`."""

    label_column: str
    classes: str
    prompts: str | tuple[str, ...]
    ensemble: Ensemble
    answer_from: Literal["prompts", "head"] = "prompts"
    half_of_classes: Annotated[int, Range(-1, 2**31 - 1)] = -1

    @property
    def given_files(self) -> Mapping[str, Path | None]:
        """See `TaskSettings`; a benchmark's list that has numbers of classes is read by the classes that are given."""
        return {"classes": Path(self.classes)} if self.classes else {}

    def contradictions(self) -> list[str]:
        """Also checks the column's name and the prompts."""
        faults = super().contradictions()
        if not self.label_column:
            faults.append("label_column is empty: name the column of the labels")
        if self.half_of_classes >= 0 and self.answer_from == "head":
            faults.append("half_of_classes is for classes that no head was trained on: not with answer_from=head")
        try:
            prompts.templates(self.prompts)
        except ConfigError as error:
            faults.append(str(error))
        return faults


def run(model: VideoTextModel, data: EvaluationSet, settings: Settings, progress: Progress) -> TaskOutput:
    """Classify every row's clip.

    Raises:
      DataError: the model has no head to answer from, a row has no label or one that is not a class, the class file
        cannot be used, no row has a class of the half, or no video could be read.
      NonFiniteError: an embedding is zero or not finite.
    """
    labels = data.column(settings.label_column)
    find_scores = _head_scores if settings.answer_from == "head" else _prompt_scores
    return classified(find_scores(model, data, settings, progress, labels), data, labels)


def classified(found: "Scores", data: EvaluationSet, labels: Sequence[str]) -> TaskOutput:
    """The result of classes that have scores; `labels` are those of the rows.

    Raises:
      DataError: a label is not a class.
    """
    classes = found.classes
    label = label_numbers(labels, row_names(data), found.all_classes)
    samples = data.samples
    if len(classes) < len(found.all_classes):
        place = {name: number for number, name in enumerate(classes)}
        names = [found.all_classes[number] for number in label]
        samples = tuple(sample for sample, name in zip(data.samples, names, strict=True) if name in place)
        label = np.array([place[name] for name in names if name in place], np.int64)
        if not samples:
            raise DataError(f"{data.name}: no row has a class of the half of {len(classes)}: give another seed")
    clip = np.array([sample.clip for sample in samples])
    missing = found.missing[clip]
    ranks = ranking.choice(found.scores[clip], label, missing)
    clips = [data.clips[number] for number in clip]
    of_row = [classes[number] for number in label]
    return TaskOutput(
        protocol={**found.protocol, "classes": len(classes), "classes_sha256": digest(sorted(classes))},
        content=[[data.identity(sample.clip), name] for sample, name in zip(samples, of_row, strict=True)],
        missing=missing,
        reasons={number: reason for number, reason in found.reasons.items() if number in set(clip.tolist())},
        metrics=score(ranks, label, missing, classes),
        queries=[Queries("class", clips, [""] * len(clips), ranks, missing, of_row)],
        texts=found.texts,
        files=found.files,
    )


def row_names(data: EvaluationSet) -> list[str]:
    """What messages call the rows."""
    return [f"row {sample.id} of {data.name}" for sample in data.samples]


@dataclasses.dataclass(frozen=True)
class Scores:
    """A score for each clip and class, with all that is said of them."""

    scores: Float32[np.ndarray, "clips classes"]  # rows of missing clips are zero
    missing: Bool[np.ndarray, " clips"]
    reasons: dict[int, str]
    classes: Sequence[str]
    all_classes: Sequence[str]  # those of the rows; `classes` may be half of them
    protocol: dict[str, Any]
    texts: TextFacts
    files: dict[str, Path]


def _prompt_scores(
    model: VideoTextModel, data: EvaluationSet, settings: Settings, progress: Progress, labels: Sequence[str]
) -> Scores:
    """By the similarity with sentences that name the classes."""
    classes = read_classes(Path(settings.classes)) if settings.classes else sorted(set(map(class_text, labels)))
    label_numbers(labels, row_names(data), classes)  # a wrong label is found before the work
    all_classes = classes
    if settings.half_of_classes >= 0:
        if len(classes) < 2:
            raise DataError(f"{data.name} has {len(classes)} class: no half of it can be taken")
        classes = list(half_classes(classes, settings.half_of_classes))
    templates = prompts.templates(settings.prompts)
    video = embed_videos(model, data, settings, progress)
    sentences = prompts.fill(templates, classes)
    text = embed_texts(model, sentences, settings.batch_size)
    present = ~video.missing
    scores = np.zeros((len(data.clips), len(classes)), np.float32)
    scores[present] = class_scores(
        video.values[present], text.reshape(len(templates), len(classes), -1), settings.ensemble, model.logit_scale
    )
    protocol: dict[str, Any] = {
        "prompts": sorted(templates),
        "ensemble": settings.ensemble,
        "classes_from": "file" if settings.classes else "labels found",
        "text_length": model.config.text.context_length,
    }
    if settings.half_of_classes >= 0:
        protocol["half_of_classes"] = settings.half_of_classes
    files = {"classes": Path(settings.classes)} if settings.classes else {}
    texts = text_facts(model, sentences)
    return Scores(scores, video.missing, video.reasons, classes, all_classes, protocol, texts, files)


def _head_scores(
    model: VideoTextModel, data: EvaluationSet, settings: Settings, progress: Progress, labels: Sequence[str]
) -> Scores:
    """By the model's fine-tuned head; no text is read."""
    head = head_of(model, "classification")
    label_numbers(labels, row_names(data), head.classes)
    video = embed_in_ways(model, data, settings, progress, {CLASS_LOGITS: head.class_logits})[0]
    protocol = {"answer_from": "head", "classes_from": "model"}
    texts = TextFacts(0, model.config.text.context_length, 0)
    return Scores(video.values, video.missing, video.reasons, head.classes, head.classes, protocol, texts, {})


def table(metrics: Mapping[str, Any]) -> list[str]:
    """The scores over all classes."""
    return tables.number_lines(metrics)


def class_scores(
    video: Float[np.ndarray, "videos width"],
    text: Float[np.ndarray, "prompts classes width"],
    ensemble: Ensemble,
    logit_scale: float,
) -> Float32[np.ndarray, "videos classes"]:
    """One score for each class, from several sentences for each class.

    Args:
      video: embeddings.
      text: embeddings of every sentence with every class name.
      ensemble: "mean_vector": cosine with the renormalised mean of the class's unit text vectors (OpenCLIP, PE);
        "mean_cosine": mean of the cosines, so classes whose sentences disagree score lower (ViCLIP, InternVideo2);
        "mean_probability": softmax over classes of logit_scale * cosine per sentence, then mean (InternVideo1).
      logit_scale: the model's factor on cosines (CLIP: about 100); used by "mean_probability" only.

    Raises:
      NonFiniteError: an embedding is zero or not finite.
    """
    n_prompts, n_classes, _ = text.shape
    if ensemble == "mean_vector":
        unit = text.astype(np.float64) / np.linalg.norm(text.astype(np.float64), axis=-1, keepdims=True)
        return ranking.similarity(video, unit.mean(axis=0))
    cosines = ranking.similarity(video, text.reshape(n_prompts * n_classes, -1))
    cosines = cosines.reshape(len(video), n_prompts, n_classes)
    if ensemble == "mean_cosine":
        return cosines.mean(axis=1, dtype=np.float64).astype(np.float32)
    logits = logit_scale * cosines.astype(np.float64)
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (exponentials / exponentials.sum(axis=-1, keepdims=True)).mean(axis=1).astype(np.float32)


def score(
    ranks: ranking.Ranks,
    label: Int[np.ndarray, " videos"],
    missing: Bool[np.ndarray, " videos"],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Top-1, top-5 and their mean AVG (percent, expectation under ties), and top-1 of each class.

    Args:
      ranks: of the right classes.
      label: number of the right class.
      missing: videos that could not be read; they count as wrong.
      classes: names of all classes.

    Returns:
      "top1", "top5", "AVG", "mean_class_top1" (mean over the classes that have videos), "chance" of top-1, "n",
      "n_tied_queries", "optimistic" and "pessimistic" {"top1", "top5"}, "per_class" {name: {"n", "top1"}}.
    """

    def share(which: ranking.Ranks, k: int) -> Float[np.ndarray, " videos"]:
        # Missing videos are wrong even if there are only k classes.
        return np.where(missing, 0.0, 100 * ranking.probability_within(which, k))

    first, fifth = share(ranks, 1), share(ranks, 5)
    per_class = {
        name: {"n": int(np.sum(label == i)), "top1": float(first[label == i].mean())}
        for i, name in enumerate(classes)
        if np.any(label == i)
    }
    return {
        "top1": float(first.mean()),
        "top5": float(fifth.mean()),
        "AVG": float(first.mean() + fifth.mean()) / 2,
        "mean_class_top1": float(np.mean([entry["top1"] for entry in per_class.values()])),
        "chance": 100 / len(classes),
        "n": len(label),
        "n_tied_queries": int(np.sum(ranks.tied > 0)),
        "optimistic": {f"top{k}": float(share(ranks.optimistic, k).mean()) for k in (1, 5)},
        "pessimistic": {f"top{k}": float(share(ranks.pessimistic, k).mean()) for k in (1, 5)},
        "per_class": per_class,
    }
