"""Which of a few sentences fits the video: the one with the highest cosine."""

import dataclasses
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from harvest_jax.config.fields import Range
from harvest_jax.errors import DataError
from harvest_jax.evaluate import frame_average, tables
from harvest_jax.evaluate.clips.embeddings import VideoEmbeddings, VideoTextModel, embed_texts, text_facts
from harvest_jax.evaluate.clips.evaluation_set import EvaluationSet
from harvest_jax.evaluate.result.queries import Queries
from harvest_jax.evaluate.result.results import TaskOutput, mean_by_type
from harvest_jax.evaluate.scores import ranking
from harvest_jax.evaluate.settings import TaskSettings
from harvest_jax.terminal import Progress

UNLIKELY = 0.001  # probability that no answer is 0, if they are counted from 0, below which the base must be stated
_FROM_ONE = " (are they counted from 1? set --config.answer_base=1)"
_OPTION_COLUMN = re.compile(r"(?:option_?|a)(\d+)")  # option_0.., option0.., a1.. (TGIF-QA), a0.. (NExT-QA)


@dataclasses.dataclass(frozen=True)
class Settings(TaskSettings):
    """`configs/eval/multiple_choice.py`."""

    prompt: str
    answer_base: Annotated[int, Range(-1, 1)] = -1
    frame_average: bool = False  # configs of version 0.1.0 have neither

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
    base = max(settings.answer_base, 0)
    rows = [read_options(f"{sample.id} of {data.name}", sample.extra, base) for sample in data.samples]
    if settings.answer_base < 0:
        _check_base(rows)
    questions = data.column("question") if "{question}" in settings.prompt else [""] * len(rows)
    texts = [
        [settings.prompt.replace("{question}", question).replace("{option}", option) for option in options]
        for question, (options, _) in zip(questions, rows, strict=True)
    ]
    flat = list(itertools.chain.from_iterable(texts))
    text = embed_texts(model, flat, settings.batch_size)
    clip = np.array([sample.clip for sample in data.samples])
    ends = np.cumsum([len(options) for options in texts])
    answer = np.array([number for _, number in rows])
    sizes = np.array([len(options) for options in texts])
    types, groups = data.column_if_complete("type"), data.column_if_complete("group")

    def ranked(video: VideoEmbeddings) -> ranking.Ranks:
        missing = video.missing[clip]
        scores = [
            np.zeros(len(own), np.float32) if lost else ranking.similarity(video.values[[number]], own)[0]
            for number, lost, own in zip(clip, missing, np.split(text, ends[:-1]), strict=True)
        ]
        return rank(scores, answer, missing)

    def chosen(video: VideoEmbeddings) -> dict[str, Any]:
        return score(ranked(video), sizes, video.missing[clip], types, groups)

    video, metrics = frame_average.embed_and_score(model, data, settings, progress, chosen, settings.frame_average)
    missing = video.missing[clip]
    clips = [data.clips[number] for number in clip]
    right = [own[number] for own, number in zip(texts, answer, strict=True)]
    kinds = zip(types or [""] * len(rows), groups or [""] * len(rows), strict=True)
    protocol = {"prompt": settings.prompt, "text_length": model.config.text.context_length}
    if settings.frame_average:
        protocol["frame_average"] = frame_average.IN_WORDS
    return TaskOutput(
        protocol=protocol,
        content=[
            [data.identity(one), own[number], sorted(own), *kind]
            for one, own, number, kind in zip(clip.tolist(), texts, answer, kinds, strict=True)
        ],
        missing=missing,
        reasons=video.reasons,
        metrics=metrics,
        queries=[Queries("choice", clips, right, ranked(video), missing, types)],
        texts=text_facts(model, flat),
        data_ties=100 * float(np.mean([own.count(one) > 1 for own, one in zip(texts, right, strict=True)])),
    )


def table(metrics: Mapping[str, Any]) -> list[str]:
    """The scores, and the accuracy of each type."""
    lines = tables.number_lines(metrics)
    if "frame_average" in metrics:
        lines += ["", "average of frames:", *tables.number_lines(metrics["frame_average"])]
    for name in ("per_type", "per_group"):
        if name in metrics:
            lines += ["", *tables.columns(("n", "accuracy"), metrics[name])]
    return lines


def _check_base(rows: Sequence[tuple[list[str], int]]) -> None:
    """Refuse answers that were counted from 1 and fit all the same, because the last option is never right.

    Raises:
      DataError: no answer is 0 in a set so large that this is no chance.
    """
    by_chance = float(np.prod([1 - 1 / len(options) for options, _ in rows]))
    if by_chance < UNLIKELY and all(answer > 0 for _, answer in rows):
        raise DataError(
            f"none of the {len(rows)} rows has the `answer` 0: are they counted from 1? Set "
            "--config.answer_base=1 if they are, and --config.answer_base=0 if not"
        )


def read_options(row_id: str, extra: Mapping[str, Any], base: int = 0) -> tuple[list[str], int]:
    """The options of one row and the number of the right one, counted from 0.

    Args:
      row_id: for messages.
      extra: the row's columns: `options` (a JSON list or a list) or columns `option_0`.. or `a1`.. in the order of
        their numbers; `answer`: the right option's number, whatever the columns are called. An option that is a
        number is read as its text.
      base: the number that `answer` has for the first option, 0 or 1.

    Raises:
      DataError: fewer than two options, an empty one, or an answer that is the number of none of them.
    """
    if extra.get("options") not in (None, ""):
        value = extra["options"]
        try:
            options = json.loads(value) if isinstance(value, str) else value
        except (json.JSONDecodeError, TypeError):
            options = None
        if not isinstance(options, list | tuple):
            raise DataError(f"row {row_id}: `options` must be a JSON list of sentences, not {value!r:.80}")
    else:
        columns = {int(match[1]): name for name in extra if (match := _OPTION_COLUMN.fullmatch(name))}
        options = [extra[columns[number]] for number in sorted(columns)]
        while options and options[-1] in (None, ""):  # a table has as many columns as the row with the most options
            options.pop()
    if len(options) < 2:
        raise DataError(f"row {row_id}: needs `options` (a JSON list) or option_0, option_1, ...: two or more")
    options = [str(option) if type(option) in (int, float) else option for option in options]
    filled = [isinstance(option, str) and bool(option.strip()) for option in options]
    if not all(filled):
        raise DataError(f"row {row_id}: option {filled.index(False)} is empty or not text")
    answer = extra.get("answer")
    try:
        number = int(str(answer))
    except ValueError:
        number = base - 1
    if not base <= number < base + len(options):
        raise DataError(
            f"row {row_id}: `answer` must be {base}..{base + len(options) - 1}, the right option's number, not "
            f"{answer!r:.40}" + (_FROM_ONE if base == 0 and number == len(options) else "")
        )
    return options, number - base


def rank(
    scores: Sequence[Float[np.ndarray, " _"]],
    answer: Int[np.ndarray, " questions"],
    missing: Bool[np.ndarray, " questions"],
) -> ranking.Ranks:
    """Ranks of the right options; questions may have different numbers of options.

    Args:
      scores: one array a question, higher is likelier; those of missing questions are ignored.
      answer: the right option.
      missing: questions whose video could not be read; they have the last rank.
    """
    sizes = np.array([len(options) for options in scores])
    greater, tied = sizes - 1, np.zeros(len(scores), np.int64)
    for size in np.unique(sizes[~missing]):
        rows = np.flatnonzero((sizes == size) & ~missing)
        ranks = ranking.choice(np.stack([scores[int(row)] for row in rows]), answer[rows])
        greater[rows], tied[rows] = ranks.greater, ranks.tied
    return ranking.Ranks(greater, tied, np.ones(len(scores), np.int64))


def score(
    ranks: ranking.Ranks,
    sizes: Int[np.ndarray, " questions"],
    missing: Bool[np.ndarray, " questions"],
    types: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Accuracy in percent; where options tie for the first place, the expectation of a random choice among them.

    Args:
      ranks: of the right options.
      sizes: number of options of each question.
      missing: questions whose video could not be read; they count as wrong.
      types: type of each question, if there are any.
      groups: what each question's type belongs to, if there are any.

    Returns:
      "accuracy", "chance" (mean of 1 / options), "n", "n_tied_queries", "optimistic", "pessimistic", and with types
      "per_type" {type: {"n", "accuracy"}}, with groups "per_group" likewise.
    """

    def credit(which: ranking.Ranks) -> Float[np.ndarray, " questions"]:
        return np.where(missing, 0.0, 100 * ranking.probability_within(which, 1))

    result: dict[str, Any] = {
        "accuracy": float(credit(ranks).mean()),
        "chance": float(np.mean(100 / sizes)),
        "n": len(sizes),
        "n_tied_queries": int(np.sum(ranks.tied[~missing] > 0)),
        "optimistic": {"accuracy": float(credit(ranks.optimistic).mean())},
        "pessimistic": {"accuracy": float(credit(ranks.pessimistic).mean())},
    }
    for name, kinds in (("per_type", types), ("per_group", groups)):
        if kinds is not None:
            result[name] = mean_by_type(kinds, credit(ranks), "accuracy")
    return result
