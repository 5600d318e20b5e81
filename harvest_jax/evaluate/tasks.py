"""One function a task: settings, a model and an evaluation set in; protocol and metrics out."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.evaluate import multiple_choice, prompts, question_answering, results, retrieval, zero_shot
from harvest_jax.evaluate.clips import EvaluationSet
from harvest_jax.evaluate.embed import (
    Report,
    VideoTextModel,
    batches,
    embed_texts,
    embed_videos,
    require_some,
    silent,
)
from harvest_jax.evaluate.settings import (
    MultipleChoiceSettings,
    QuestionSettings,
    RetrievalSettings,
    Settings,
    ZeroShotSettings,
)

RESIZES = {  # what the protocol says of `Preprocessing.resize`
    "crop": "shorter side to image_size, bicubic with antialias, centre crop",
    "squash": "both sides to image_size, bicubic with antialias",
}
MAX_TIE_SPREAD = 0.1  # points between the best and the worst order of ties beyond which a figure needs a warning


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a task hands back.

    Attributes:
      protocol: the task's own choices, beside those that all tasks share.
      n_expected: items scored.
      lost: which of them counted as wrong because their video is missing.
      reasons: why, by clip number.
      metrics: the scores.
    """

    protocol: dict[str, Any]
    n_expected: int
    lost: Bool[np.ndarray, " items"]
    reasons: dict[int, str]
    metrics: dict[str, Any]


def evaluate(settings: Settings, model: VideoTextModel, data: EvaluationSet, report: Report = silent) -> dict[str, Any]:
    """Score the model; the result object of `results.result`.

    Raises:
      ConfigError: the settings do not fit the model.
      DataError: the set lacks a column, a row cannot be used, no video could be read, or `strict` is set and a video is
        missing or ties leave a figure open.
      NonFiniteError: the model's output is not finite.
    """
    num_frames = settings.frames or model.num_frames
    if num_frames > model.num_frames:
        raise ConfigError(f"frames={settings.frames}, but this model takes {model.num_frames} frames a clip")
    function: Any = {
        RetrievalSettings: _retrieval,
        ZeroShotSettings: _zero_shot,
        MultipleChoiceSettings: _multiple_choice,
        QuestionSettings: _questions,
    }[type(settings)]
    outcome: Outcome = function(settings, model, data, num_frames, report)
    protocol = {
        "task": settings.task,
        "data": {
            "name": data.name,
            "kind": data.kind,
            "split": data.split,
            "rows": len(data.samples),
            "sha256": data.digest,
        },
        "frames": num_frames,
        "model_frames": model.num_frames,
        "sampling": "segment_middle",
        "resize": RESIZES[model.config.preprocessing.resize],
        "image_size": model.config.video.image_size,
        "scores_dtype": "float32",
        "ties": "expectation",
        "missing": "wrong",
        **outcome.protocol,
    }
    n_missing = int(outcome.lost.sum())
    missing = [
        {"video": data.clips[number].video, "reason": reason} for number, reason in sorted(outcome.reasons.items())
    ]
    warnings = []
    if n_missing:
        warnings.append(f"{n_missing} of {outcome.n_expected} counted as wrong: {len(missing)} videos were not read")
    if data.unstored:
        warnings.append(
            f"{data.unstored} rows were rejected when the shards were made and are not counted: give data.manifest too"
        )
    spread = tie_spread(outcome.metrics)
    if spread > MAX_TIE_SPREAD:
        warnings.append(f"equal scores leave the figures open by up to {spread:.2f} points (optimistic, pessimistic)")
    if settings.strict and warnings:
        raise DataError("strict=True: " + "; ".join(warnings) + (f"; the first: {missing[0]}" if missing else ""))
    return results.result(
        task=settings.task,
        protocol=protocol,
        n_expected=outcome.n_expected,
        missing=missing,
        n_missing=n_missing,
        metrics=outcome.metrics,
        model=model.name,
        seed=settings.seed,
        warnings=warnings,
    )


def tie_spread(metrics: dict[str, Any]) -> float:
    """Largest difference in points of any percentage between `optimistic` and `pessimistic`, at any depth."""
    widest = 0.0
    if "optimistic" in metrics:
        best, worst = metrics["optimistic"], metrics["pessimistic"]
        widest = max(abs(best[name] - worst[name]) for name in best if name not in ("MedR", "MnR"))
    return max([widest, *(tie_spread(value) for value in metrics.values() if isinstance(value, dict))])


def _retrieval(
    settings: RetrievalSettings, model: VideoTextModel, data: EvaluationSet, num_frames: int, report: Report
) -> Outcome:
    pairs = [(sample.clip, caption) for sample in data.samples for caption in sample.captions]
    without = [sample.id for sample in data.samples if not sample.captions]
    if without:
        raise DataError(f"{data.name}: {len(without)} rows have no caption, the first: {without[0]}")
    captions = [caption for _, caption in pairs]
    video = embed_videos(model, data, num_frames, settings.batch_size, report)
    text = embed_texts(model, captions, settings.batch_size)
    owner = np.array([clip for clip, _ in pairs])
    metrics = retrieval.score(video.values, text, owner, video.missing, settings.dual_softmax_scale)
    protocol = {
        "gallery": len(data.clips),
        "captions": len(captions),
        "distinct_captions": len(set(captions)),
        "text_length": model.config.text.context_length,
        "dual_softmax_scale": settings.dual_softmax_scale,
    }
    return Outcome(protocol, len(data.clips), video.missing, video.reasons, metrics)


def _zero_shot(
    settings: ZeroShotSettings, model: VideoTextModel, data: EvaluationSet, num_frames: int, report: Report
) -> Outcome:
    labels = [str(sample.extra.get(settings.label_column) or "") for sample in data.samples]
    ids = [sample.id for sample in data.samples]
    empty = [i for i, label in zip(ids, labels, strict=True) if not label.strip()]
    if empty:
        raise DataError(f"{data.name}: {len(empty)} rows have no `{settings.label_column}`, the first: {empty[0]}")
    classes = (
        zero_shot.read_classes(Path(settings.classes))
        if settings.classes
        else sorted({prompts.class_text(label) for label in labels})
    )
    number = zero_shot.label_columns(labels, ids, classes)
    sentences = prompts.templates(settings.prompts)
    video = embed_videos(model, data, num_frames, settings.batch_size, report)
    clip = np.array([sample.clip for sample in data.samples])
    text = embed_texts(model, prompts.fill(sentences, classes), settings.batch_size)
    present = ~video.missing
    scores = np.zeros((len(data.clips), len(classes)), np.float32)
    scores[present] = zero_shot.class_scores(
        video.values[present], text.reshape(len(sentences), len(classes), -1), settings.ensemble, model.logit_scale
    )
    lost = video.missing[clip]
    metrics = zero_shot.score(scores[clip], number, lost, classes)
    protocol = {
        "prompts": list(sentences),
        "ensemble": settings.ensemble,
        "classes": len(classes),
        "classes_sha256": results.digest(classes),
        "classes_from": "file" if settings.classes else "labels found",
        "text_length": model.config.text.context_length,
    }
    return Outcome(protocol, len(data.samples), lost, video.reasons, metrics)


def _multiple_choice(
    settings: MultipleChoiceSettings, model: VideoTextModel, data: EvaluationSet, num_frames: int, report: Report
) -> Outcome:
    rows = [multiple_choice.read_options(sample.id, sample.extra) for sample in data.samples]
    if "{question}" in settings.prompt:
        _require_column(data, "question")
    texts = [
        [
            settings.prompt.replace("{question}", str(sample.extra.get("question"))).replace("{option}", option)
            for option in options
        ]
        for sample, (options, _) in zip(data.samples, rows, strict=True)
    ]
    video = embed_videos(model, data, num_frames, settings.batch_size, report)
    text = embed_texts(model, list(itertools.chain.from_iterable(texts)), settings.batch_size)
    scores, start = [], 0
    lost = video.missing[[sample.clip for sample in data.samples]]
    for sample, options, gone in zip(data.samples, texts, lost, strict=True):
        own = text[start : start + len(options)]
        start += len(options)
        scores.append(
            np.zeros(len(options), np.float32) if gone else multiple_choice.cosines(video.values[sample.clip], own)
        )
    kinds = [str(sample.extra.get("type") or "") for sample in data.samples]
    answer = np.array([number for _, number in rows])
    metrics = multiple_choice.score(scores, answer, lost, kinds if all(kinds) else None)
    protocol = {"prompt": settings.prompt, "text_length": model.config.text.context_length}
    return Outcome(protocol, len(data.samples), lost, video.reasons, metrics)


def _questions(
    settings: QuestionSettings, model: VideoTextModel, data: EvaluationSet, num_frames: int, report: Report
) -> Outcome:
    if model.config.decoder is None:
        raise DataError(f"{model.name} has no decoder for masked words: it can embed but not answer")
    questions = _require_column(data, "question")
    answers = [question_answering.normal(answer) for answer in _require_column(data, "answer")]
    listed = question_answering.read_answers(Path(settings.answers)) if settings.answers else sorted(set(answers))
    allowed = question_answering.candidates(listed, model.tokenizer)
    number = {answer: i for i, answer in enumerate(allowed.answers)}
    right = np.array([number.get(answer, -1) for answer in answers])
    length = settings.text_length or model.config.text.context_length
    if length > model.config.text.context_length:
        raise ConfigError(f"text_length={length}, but this model takes {model.config.text.context_length} tokens")
    filled = [question_answering.prompt_ids(model.tokenizer, settings.prompt, asked, length) for asked in questions]
    ids = np.stack([row for row, _, _ in filled])
    slot = np.array([place for _, place, _ in filled], np.int32)

    rows_of: dict[int, list[int]] = {}
    for row, sample in enumerate(data.samples):
        rows_of.setdefault(sample.clip, []).append(row)
    marks = question_answering.Marks.empty(len(questions))
    reasons: dict[int, str] = {}
    for clips, frames in batches(model, data, num_frames, settings.batch_size, reasons, report):
        pairs = [(place, row) for place, clip in enumerate(clips) for row in rows_of[clip]]
        for start in range(0, len(pairs), settings.batch_size):
            places, rows = map(np.array, zip(*pairs[start : start + settings.batch_size], strict=True))
            logits = np.asarray(model.answer_logits(frames[places], ids[rows], slot[rows]), np.float32)
            marks.add(rows, logits, right[rows], allowed)
    require_some(data, reasons)
    lost = np.array([sample.clip in reasons for sample in data.samples])
    declared = [str(sample.extra.get("type") or "") for sample in data.samples]
    kinds = declared if all(declared) else question_answering.question_kinds(questions)
    metrics = question_answering.score(marks, right >= 0, kinds, allowed)
    metrics["n_cut_questions"] = sum(cut for _, _, cut in filled)
    protocol = {
        "prompt": settings.prompt,
        "answers": len(allowed.answers),
        "answers_sha256": results.digest(allowed.answers),
        "answers_from": "file" if settings.answers else "answers of the set itself",
        "answer_score": "logit of the first token",
        "text_length": length,
    }
    return Outcome(protocol, len(questions), lost, reasons, metrics)


def _require_column(data: EvaluationSet, column: str) -> Sequence[str]:
    """The column as stripped text."""
    values = ["" if (value := sample.extra.get(column)) is None else str(value).strip() for sample in data.samples]
    empty = [sample.id for sample, value in zip(data.samples, values, strict=True) if not value]
    if empty:
        raise DataError(f"{data.name}: {len(empty)} rows have no `{column}`, the first: {empty[0]}")
    return values
