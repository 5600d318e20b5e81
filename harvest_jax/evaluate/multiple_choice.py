"""Which of a few sentences fits the video: the one with the highest cosine."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from harvest_jax.errors import DataError
from harvest_jax.evaluate import ranking

_OPTION_COLUMN = re.compile(r"(?:option_?|a)(\d+)")  # option_0.., option0.., a1.. (TGIF-QA), a0.. (NExT-QA)


def read_options(row_id: str, extra: Mapping[str, Any]) -> tuple[list[str], int]:
    """The options of one row and the number of the right one, counted from 0.

    Args:
      row_id: for messages.
      extra: the row's columns: `options` (a JSON list or a list) or columns `option_0`.. or `a1`.. in the order of
        their numbers; `answer`: the right option's place counted from 0, whatever the columns are called.

    Raises:
      DataError: no options, fewer than two, an empty one, or an answer that is none of them.
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
        while options and options[-1] in (None, ""):  # a table has as many columns as its longest row
            options.pop()
    if len(options) < 2:
        raise DataError(f"row {row_id}: needs `options` (a JSON list) or option_0, option_1, ...: two or more")
    filled = [isinstance(option, str) and bool(option.strip()) for option in options]
    if not all(filled):
        raise DataError(f"row {row_id}: option {filled.index(False)} is empty or no text")
    answer = extra.get("answer")
    try:
        number = int(str(answer))
    except ValueError:
        number = -1
    if not 0 <= number < len(options):
        last = len(options) - 1
        raise DataError(f"row {row_id}: `answer` must be 0..{last}, the right option's place, not {answer!r}")
    return options, number


def cosines(
    video: Float[np.ndarray, " width"], options: Float[np.ndarray, "options width"]
) -> Float32[np.ndarray, " options"]:
    """Cosine of one video with each of its options; errors as `ranking.similarity`."""
    return ranking.similarity(video[None], options)[0]


def score(
    scores: Sequence[Float[np.ndarray, " _"]],
    answer: Int[np.ndarray, " questions"],
    missing: Bool[np.ndarray, " questions"],
    kinds: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Accuracy in percent: the expectation, if the options that tie for the first place are drawn from at random.

    Args:
      scores: one array a question, higher is likelier; those of missing questions are not looked at.
      answer: the right option.
      missing: questions whose video could not be read; they count as wrong.
      kinds: type of each question, if there are any.

    Returns:
      "accuracy", "chance" (mean of 1 / options), "n", "n_tied_queries", "optimistic", "pessimistic", and with kinds
      "per_type" {kind: {"n", "accuracy"}}.
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
    if kinds is not None:
        result["per_type"] = per_kind(kinds, credit, "accuracy")
    return result


def per_kind(kinds: Sequence[str], credit: Float[np.ndarray, " questions"], name: str) -> dict[str, dict[str, Any]]:
    """{kind: {"n", name: mean credit}} in alphabetical order."""
    of = np.array(kinds)
    return {
        str(kind): {"n": int(np.sum(of == kind)), name: float(credit[of == kind].mean())} for kind in sorted(set(kinds))
    }
