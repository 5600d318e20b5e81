"""How often something happens: numbers, answered at a masked word and scored by the mean squared error (TGIF-QA's
repetition counts).

A number is answered by its word ("two"), one token each, as people write small numbers in captions. Two predictions are
scored: the number with the highest logit, and the expectation of the number under a softmax over the candidates'
logits, rounded. The error of an expectation is lower for a model that is unsure; the first is the headline because it
is what the model answers.

Two rules say which numbers there are:
  tgif_qa: as TGIF-QA's own program (github.com/YunseokJANG/tgif-qa, code/gifqa: `max(answer, 1)` in data_util/tgif.py,
    predictions rounded and clipped to 1..10 in models/count_base.py; HCRN does the same). Its file writes 0 where
    something is not repeated, and never 1; 10 means ten or more.
  as_written: 0..10, and an answer of 0 is right only for a prediction of 0.
Each rule has its own candidates, so that a model that can only say 1..10 is not asked for 0.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from harvest_jax.errors import DataError, NonFiniteError
from harvest_jax.evaluate import tables
from harvest_jax.evaluate.clips.embeddings import VideoTextModel
from harvest_jax.evaluate.clips.evaluation_set import EvaluationSet
from harvest_jax.evaluate.masked_questions import MaskedSettings, logit_batches, prompted
from harvest_jax.evaluate.result.queries import Queries
from harvest_jax.evaluate.result.results import TaskOutput, TextFacts
from harvest_jax.input.answers import candidates
from harvest_jax.terminal import Progress

Rule = Literal["tgif_qa", "as_written"]
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")  # at their numbers
LOWEST: dict[Rule, int] = {"tgif_qa": 1, "as_written": 0}
HIGHEST = len(WORDS) - 1


@dataclasses.dataclass(frozen=True)
class Settings(MaskedSettings):
    """`configs/eval/counting.py`."""

    rule: Rule


def run(model: VideoTextModel, data: EvaluationSet, settings: Settings, progress: Progress) -> TaskOutput:
    """Answer every question with a number.

    Raises:
      ConfigError: the text is longer than the model takes, or the prompt leaves no room for a question.
      DataError: the model has no decoder or cannot tell the number words apart, a row has no question, an answer is not
        a number from 0 to 10, or no video could be read.
      NonFiniteError: a number's logit is not finite.
    """
    data = data.by_question()
    questions = data.column("question")
    asked = prompted(model, settings, questions)
    answers = read_counts(data.column("answer"), [f"{sample.id} of {data.name}" for sample in data.samples])
    words = candidates(WORDS, model.tokenizer)
    if words.n_collisions:
        raise DataError(f"{model.name}'s tokenizer gives several of {', '.join(WORDS)} the same first token")
    logits = np.zeros((len(questions), len(WORDS)), np.float32)
    unreadable: dict[int, str] = {}
    for rows, found in logit_batches(model, data, settings, asked, unreadable, progress):
        logits[rows] = found[:, words.first_token]
    missing = np.array([sample.clip in unreadable for sample in data.samples])
    by_rule = {rule: score(logits, answers, missing, rule) for rule in LOWEST}
    metrics: dict[str, Any] = {
        **by_rule[settings.rule],
        "n_cut_questions": asked.n_cut,
        "by_rule": by_rule,
    }
    protocol = {
        "prompt": settings.prompt,
        "rule": settings.rule,
        "numbers": list(WORDS[LOWEST[settings.rule] :]),
        "missing_error": "largest possible",
        "text_length": asked.length,
    }
    clips = [data.clips[sample.clip] for sample in data.samples]
    identities = [data.identity(sample.clip) for sample in data.samples]
    error = predict(logits, answers, missing, settings.rule).error
    return TaskOutput(
        protocol=protocol,
        content=[[one, *row] for one, *row in zip(identities, questions, answers.tolist(), strict=True)],
        missing=missing,
        reasons=unreadable,
        metrics=metrics,
        queries=[Queries("count", clips, questions, None, missing, value=error)],
        texts=TextFacts(len(questions), asked.length, asked.n_cut),
    )


def table(metrics: Mapping[str, Any]) -> list[str]:
    """The scores by the chosen rule, and both rules beside each other."""
    shown = ("MSE", "MSE_expectation", "accuracy", "constant_MSE")
    return [*tables.number_lines(metrics), "", *tables.columns(shown, metrics["by_rule"])]


def read_counts(answers: Sequence[str], ids: Sequence[str]) -> Int[np.ndarray, " questions"]:
    """The answers as numbers.

    Raises:
      DataError: one is not a whole number from 0 to 10.
    """
    for row, answer in zip(ids, answers, strict=True):
        if not (answer.isascii() and answer.isdecimal() and int(answer) <= HIGHEST):
            raise DataError(f"row {row}: `answer` must be a whole number from 0 to {HIGHEST}, not {answer!r:.40}")
    return np.array([int(answer) for answer in answers], np.int64)


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a model answers, by one rule, and how wrong it is.

    Attributes:
      numbers: the possible predictions.
      target: the right one of each question.
      errors: squared error of each question and each possible prediction.
      scores: logits; zero where the video is missing.
      best: the predictions with the highest logit, several if they tie.
      error: squared error of each question, the mean over `best`; of a missing video the largest possible.
    """

    numbers: Int[np.ndarray, " numbers"]
    target: Int[np.ndarray, " questions"]
    errors: Float[np.ndarray, "questions numbers"]
    scores: Float[np.ndarray, "questions numbers"]
    best: Bool[np.ndarray, "questions numbers"]
    error: Float[np.ndarray, " questions"]


def predict(
    logits: Float[np.ndarray, "questions all"],
    answers: Int[np.ndarray, " questions"],
    missing: Bool[np.ndarray, " questions"],
    rule: Rule,
) -> Predictions:
    """The predictions of every question; arguments and errors as for `score`."""
    low = LOWEST[rule]
    numbers = np.arange(low, HIGHEST + 1)
    target = np.maximum(answers, low)
    errors = (numbers[None, :] - target[:, None]).astype(np.float64) ** 2
    scores = np.where(missing[:, None], 0.0, logits[:, low:].astype(np.float64))
    if not np.isfinite(scores).all():
        raise NonFiniteError(
            f"the logits of {int(np.sum(~np.isfinite(scores).all(axis=1)))} questions are not finite: the model's "
            "weights are damaged or its training diverged"
        )
    best = scores == scores.max(axis=1, keepdims=True)
    shares = best / best.sum(axis=1, keepdims=True)
    error = np.where(missing, errors.max(axis=1), (shares * errors).sum(axis=1))
    return Predictions(numbers, target, errors, scores, best, error)


def score(
    logits: Float[np.ndarray, "questions numbers"],
    answers: Int[np.ndarray, " questions"],
    missing: Bool[np.ndarray, " questions"],
    rule: Rule,
) -> dict[str, Any]:
    """Mean squared errors and accuracies in percent, by one rule.

    Args:
      logits: of the numbers 0 to 10; those of missing questions are ignored.
      answers: as written, 0 to 10.
      missing: questions whose video could not be read. Their error is the largest that a prediction could have, and
        they count as wrong: a missing video must never be better than an answer (our choice).
      rule: which predictions there are, and what an answer of 0 means.

    Returns:
      "MSE", "accuracy": of the number with the highest logit; if several have it, the mean over them (the expectation
      of a random choice); "MSE_expectation", "accuracy_expectation": of the expected number, rounded (exact halves to
      the even number, as TGIF-QA's program); "constant_MSE": of the best single number for all questions, which needs
      no video; "chance_MSE": of a random number; "chance": its accuracy; "n", "n_tied_queries"; "optimistic" and
      "pessimistic" {"MSE", "accuracy"}.

    Raises:
      NonFiniteError: a logit is not finite.
    """
    found = predict(logits, answers, missing, rule)
    numbers, target, errors, scores, best = found.numbers, found.target, found.errors, found.scores, found.best
    worst = errors.max(axis=1)
    right = best & (errors == 0)
    shares = best / best.sum(axis=1, keepdims=True)
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    expected = np.rint((exponentials @ numbers) / exponentials.sum(axis=1)).astype(np.int64)
    expected_error = np.where(missing, worst, (expected - target).astype(np.float64) ** 2)
    highest = np.where(best, errors, -np.inf).max(axis=1)
    lowest = np.where(best, errors, np.inf).min(axis=1)

    def mean(values: Float[np.ndarray, " questions"], lost: Float[np.ndarray, " questions"] | float) -> float:
        return float(np.where(missing, lost, values).mean())

    return {
        "MSE": float(found.error.mean()),
        "accuracy": mean(100 * (shares * right).sum(axis=1), 0.0),
        "MSE_expectation": float(expected_error.mean()),
        "accuracy_expectation": 100 * float((expected_error == 0).mean()),
        "constant_MSE": float(errors.mean(axis=0).min()),
        "chance_MSE": float(errors.mean()),
        "chance": 100 / len(numbers),
        "n": len(answers),
        "n_tied_queries": int(np.sum(~missing & (best.sum(axis=1) > 1))),
        "optimistic": {"MSE": mean(lowest, worst), "accuracy": mean(100.0 * right.any(axis=1), 0.0)},
        "pessimistic": {
            "MSE": mean(highest, worst),
            "accuracy": mean(100.0 * (right.any(axis=1) & (best.sum(axis=1) == 1)), 0.0),
        },
    }
