"""Classification by the class whose name in a sentence is most like the video, without training on the classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from harvest_jax.errors import DataError
from harvest_jax.evaluate import ranking
from harvest_jax.evaluate.prompts import class_text

ENSEMBLES = ("mean_vector", "mean_cosine", "mean_probability")


def class_scores(
    video: Float[np.ndarray, "videos width"],
    text: Float[np.ndarray, "prompts classes width"],
    ensemble: str,
    logit_scale: float,
) -> Float32[np.ndarray, "videos classes"]:
    """One score a class from several sentences a class.

    Args:
      video: embeddings.
      text: embeddings of every sentence with every class name.
      ensemble: "mean_vector": cosine with the renormalised mean of the class's unit text vectors (OpenCLIP, PE);
        "mean_cosine": mean of the cosines, so classes whose sentences disagree score lower (ViCLIP, InternVideo2);
        "mean_probability": softmax over classes of logit_scale * cosine per sentence, then mean (InternVideo1).
      logit_scale: the factor on cosines (CLIP: about 100); used by "mean_probability" only.

    Raises:
      NonFiniteError: an embedding is zero or not finite.
    """
    prompts, classes, _ = text.shape
    if ensemble == "mean_vector":
        unit = text.astype(np.float64) / np.linalg.norm(text.astype(np.float64), axis=-1, keepdims=True)
        return ranking.similarity(video, unit.mean(axis=0))
    cosines = ranking.similarity(video, text.reshape(prompts * classes, -1)).reshape(len(video), prompts, classes)
    if ensemble == "mean_cosine":
        return cosines.mean(axis=1, dtype=np.float64).astype(np.float32)
    if ensemble == "mean_probability":
        logits = logit_scale * cosines.astype(np.float64)
        odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return (odds / odds.sum(axis=-1, keepdims=True)).mean(axis=1).astype(np.float32)
    raise ValueError(f"ensemble {ensemble!r} is none of {', '.join(ENSEMBLES)}")


def score(
    scores: Float[np.ndarray, "videos classes"],
    label: Int[np.ndarray, " videos"],
    missing: Bool[np.ndarray, " videos"],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Top-1, top-5 and their mean AVG (percent, expectation under ties), and top-1 of each class.

    Args:
      scores: rows of missing videos are not looked at.
      label: the right class's column.
      missing: videos that could not be read; they count as wrong.
      classes: names of the columns.

    Returns:
      "top1", "top5", "AVG", "mean_class_top1" (mean over the classes that have videos), "chance" of top-1, "n",
      "n_tied_queries", "optimistic" and "pessimistic" {"top1", "top5"}, "per_class" {name: {"n", "top1"}}.
    """
    ranks = ranking.choice(scores, label, missing)

    def share(which: ranking.Ranks, k: int) -> Float[np.ndarray, " videos"]:
        return np.where(missing, 0.0, 100 * ranking.probability_within(which, k))  # wrong even if k classes are all

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


def read_classes(path: Path) -> list[str]:
    """Class names of a text file (one a line) or a CSV file with a column `name`, in the file's order, as words.

    Raises:
      DataError: the file cannot be read, is empty, or names a class twice.
    """
    import csv

    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"class names {path}: {error}") from error
    if path.suffix.lower() == ".csv":
        rows = list(csv.DictReader(text.splitlines()))
        if rows and rows[0].get("name") is None:
            raise DataError(f"class names {path}: no column `name`")
        names = [class_text(row["name"] or "") for row in rows]
    else:
        names = [class_text(line) for line in text.splitlines()]
    names = [name for name in names if name]
    if not names:
        raise DataError(f"class names {path}: the file names none")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"class names {path}: {twice[0]!r} stands there more than once")
    return names


def label_columns(labels: Sequence[str], ids: Sequence[str], classes: Sequence[str]) -> Int[np.ndarray, " rows"]:
    """The class number of each label, compared as words.

    Raises:
      DataError: a label is empty or no class.
    """
    number = {name: i for i, name in enumerate(classes)}
    unknown = [(i, label) for i, label in zip(ids, labels, strict=True) if class_text(label) not in number]
    if unknown:
        raise DataError(f"{len(unknown)} labels are no class, the first: {unknown[0][1]!r} of {unknown[0][0]}")
    return np.array([number[class_text(label)] for label in labels], np.int64)
