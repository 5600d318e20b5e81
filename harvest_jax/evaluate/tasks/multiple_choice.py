"""Which of a few sentences fits the video: the one with the highest cosine."""

import dataclasses
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from harvest_jax.errors import DataError
from harvest_jax.evaluate import frame_average, ranking, tables
from harvest_jax.evaluate.embeddings import VideoEmbeddings, VideoTextModel, embed_texts
from harvest_jax.evaluate.evaluation_set import EvaluationSet
from harvest_jax.evaluate.results import TaskOutput, mean_by_type
from harvest_jax.evaluate.settings import TaskSettings
from harvest_jax.terminal import Progress

_OPTION_COLUMN = re.compile(r"(?:option_?|a)(\d+)")  # option_0.., option0.., a1.. (TGIF-QA), a0.. (NExT-QA)


@dataclasses.dataclass(frozen=True)
class Settings(TaskSettings):
    """`configs/eval/multiple_choice.py`."""

    prompt: str
    frame_average: bool = False  # configs of version 0.1.0 do not have it

    def contradictions(self) -> list[str]:
        """Also checks the prompt."""
        faults = super().contradictions()
        if self.prompt.count("{option}") != 1:
            faults.append(f"prompt={self.prompt!r} must contain {{option}} once (it may contain {{question}})")
        return faults


def run(model: VideoTextModel, data: EvaluationSet, settings: Settings, progress: Progress) -> TaskOutput:
    """Choose an option for every row.

    Raises:
      DataError: a row has no usable options or answer, or no video could be read.
      NonFiniteError: an embedding is zero or not finite.
    """
    rows = [read_options(sample.id, sample.extra) for sample in data.samples]
    questions = data.column("question") if "{question}" in settings.prompt else [""] * len(rows)
    texts = [
        [settings.prompt.replace("{question}", question).replace("{option}", option) for option in options]
        for question, (options, _) in zip(questions, rows, strict=True)
    ]
    text = embed_texts(model, list(itertools.chain.from_iterable(texts)), settings.batch_size)
    clip = np.array([sample.clip for sample in data.samples])
    ends = np.cumsum([len(options) for options in texts])
    answer = np.array([number for _, number in rows])
    types = data.column_if_complete("type")

    def chosen(video: VideoEmbeddings) -> dict[str, Any]:
        missing = video.missing[clip]
        scores = [
            np.zeros(len(own), np.float32) if lost else ranking.similarity(video.values[[number]], own)[0]
            for number, lost, own in zip(clip, missing, np.split(text, ends[:-1]), strict=True)
        ]
        return score(scores, answer, missing, types)

    video, metrics = frame_average.embed_and_score(model, data, settings, progress, chosen, settings.frame_average)
    protocol = {"prompt": settings.prompt, "text_length": model.config.text.context_length}
    if settings.frame_average:
        protocol["frame_average"] = frame_average.IN_WORDS
    return TaskOutput(protocol, video.missing[clip], video.reasons, metrics)


def table(metrics: Mapping[str, Any]) -> list[str]:
    """The scores, and the accuracy of each type."""
    lines = tables.number_lines(metrics)
    if "frame_average" in metrics:
        lines += ["", "average of frames:", *tables.number_lines(metrics["frame_average"])]
    if "per_type" in metrics:
        lines += ["", *tables.columns(("n", "accuracy"), metrics["per_type"])]
    return lines


def read_options(row_id: str, extra: Mapping[str, Any]) -> tuple[list[str], int]:
    """The options of one row and the number of the right one, counted from 0.

    Args:
      row_id: for messages.
      extra: the row's columns: `options` (a JSON list or a list) or columns `option_0`.. or `a1`.. in the order of
        their numbers; `answer`: the right option's number counted from 0, whatever the columns are called.

    Raises:
      DataError: fewer than two options, an empty one, or an answer that is the number of none of them.
    """
    if extra.get("options") not in (None, ""):
        value = extra["options"]
        try:
            options = json.loads(value) if isinstance(value, str) else list(value)
        except (json.JSONDecodeError, TypeError):
            options = None
        if not isinstance(options, list):
            raise DataError(f"row {row_id}: `options` must be a JSON list of sentences, not {value!r:.80}")
    else:
        columns = {int(match[1]): name for name in extra if (match := _OPTION_COLUMN.fullmatch(name))}
        options = [extra[columns[number]] for number in sorted(columns)]
        while options and options[-1] in (None, ""):  # a table has as many columns as the row with the most options
            options.pop()
    if len(options) < 2:
        raise DataError(f"row {row_id}: needs `options` (a JSON list) or option_0, option_1, ...: two or more")
    filled = [isinstance(option, str) and bool(option.strip()) for option in options]
    if not all(filled):
        raise DataError(f"row {row_id}: option {filled.index(False)} is empty or not text")
    answer = extra.get("answer")
    try:
        number = int(str(answer))
    except ValueError:
        number = -1
    if not 0 <= number < len(options):
        last = len(options) - 1
        raise DataError(f"row {row_id}: `answer` must be 0..{last}, the right option's number, not {answer!r}")
    return options, number


def score(
    scores: Sequence[Float[np.ndarray, " _"]],
    answer: Int[np.ndarray, " questions"],
    missing: Bool[np.ndarray, " questions"],
    types: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Accuracy in percent; where options tie for the first place, the expectation of a random choice among them.

    Args:
      scores: one array a question, higher is likelier; those of missing questions are ignored.
      answer: the right option.
      missing: questions whose video could not be read; they count as wrong.
      types: type of each question, if there are any.

    Returns:
      "accuracy", "chance" (mean of 1 / options), "n", "n_tied_queries", "optimistic", "pessimistic", and with types
      "per_type" {type: {"n", "accuracy"}}.
    """
    sizes = np.array([len(options) for options in scores])
    credit, best, worst = np.zeros(len(scores)), np.zeros(len(scores)), np.zeros(len(scores))
    tied = 0
    for size in np.unique(sizes[~missing]):
        rows = np.flatnonzero((sizes == size) & ~missing)
        ranks = ranking.choice(np.stack([scores[int(row)] for row in rows]), answer[rows])
        for target, which in ((credit, ranks), (best, ranks.optimistic), (worst, ranks.pessimistic)):
            target[rows] = 100 * ranking.probability_within(which, 1)
        tied += int(np.sum(ranks.tied > 0))
    result: dict[str, Any] = {
        "accuracy": float(credit.mean()),
        "chance": float(np.mean(100 / sizes)),
        "n": len(scores),
        "n_tied_queries": tied,
        "optimistic": {"accuracy": float(best.mean())},
        "pessimistic": {"accuracy": float(worst.mean())},
    }
    if types is not None:
        result["per_type"] = mean_by_type(types, credit, "accuracy")
    return result
