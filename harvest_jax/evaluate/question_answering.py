"""Open-ended questions, answered at a masked word: "Question: what is it? Answer: [mask]" through the decoder.

The decoder puts one token into one slot, so a candidate answer is scored by the logit of its **first token**. That is
exact for answers of one token (nearly all of MSRVTT-QA's and MSVD-QA's are one). Candidates that begin with the same
token cannot be told apart: they tie, a tie is scored as the expectation of a random choice, and the result says how
many candidates that concerns.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.evaluate import ranking
from harvest_jax.evaluate.multiple_choice import per_kind
from harvest_jax.input.tokenizer import Tokenizer

QUESTION_WORDS = ("what", "who", "how", "where", "when")


@dataclasses.dataclass(frozen=True)
class Candidates:
    """The answers that may be given.

    Attributes:
      answers: as `normal` writes them, each once.
      first_token: the id that stands for each.
      n_multi_token: how many have more than that one token.
      n_collisions: how many share it with another candidate.
    """

    answers: tuple[str, ...]
    first_token: Int32[np.ndarray, " answers"]
    n_multi_token: int
    n_collisions: int


def normal(answer: str) -> str:
    """How answers are compared: lower case, single blanks."""
    return " ".join(answer.lower().split())


def candidates(answers: Sequence[str], tokenizer: Tokenizer) -> Candidates:
    """The distinct answers and their tokens, in the order given.

    Raises:
      DataError: no answers, or one without a token.
    """
    distinct = tuple(dict.fromkeys(map(normal, answers)))
    tokens = [tokenizer.encode(answer) for answer in distinct]
    if not distinct:
        raise DataError("no candidate answers")
    if not all(tokens):
        raise DataError(f"the candidate answer {distinct[[bool(ids) for ids in tokens].index(False)]!r} has no words")
    first = np.array([ids[0] for ids in tokens], np.int32)
    _, place, count = np.unique(first, return_inverse=True, return_counts=True)
    return Candidates(distinct, first, sum(len(ids) > 1 for ids in tokens), int(np.sum(count[place] > 1)))


def read_answers(path: Path) -> list[str]:
    """Candidate answers: a text file with one a line, or JSON (a list, or an object whose keys are the answers).

    Raises:
      DataError: the file cannot be read or holds none.
    """
    try:
        text = path.read_text("utf-8-sig")
        value = json.loads(text) if path.suffix.lower() == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"answers {path}: {error}") from error
    if not isinstance(value, list | dict) or not all(isinstance(answer, str) for answer in value):
        raise DataError(f"answers {path}: must be a list of words, or an object whose keys are words")
    answers = [answer for answer in value if answer.strip()]
    if not answers:
        raise DataError(f"answers {path}: the file holds none")
    return answers


def split_prompt(prompt: str) -> tuple[str, str]:
    """What stands before and after {mask}.

    Raises:
      ConfigError: {question} or {mask} is not there exactly once, or the question does not come first (the text tower
        reads from left to right: at the mask it has seen only what stands before).
    """
    if prompt.count("{mask}") != 1 or prompt.count("{question}") != 1:
        raise ConfigError(f"prompt={prompt!r} must hold {{question}} and {{mask}}, each once")
    before, after = prompt.split("{mask}")
    if "{question}" not in before:
        raise ConfigError(f"prompt={prompt!r} must have {{question}} before {{mask}}: the text is read left to right")
    return before, after


def prompt_ids(
    tokenizer: Tokenizer, prompt: str, question: str, length: int
) -> tuple[Int32[np.ndarray, " length"], int, bool]:
    """Token ids of the prompt with the question in it.

    Args:
      tokenizer: the model's.
      prompt: with {question} and {mask}.
      question: a question too long for `length` loses its last words, never the words around it.
      length: tokens, start and end included.

    Returns:
      int32 ids [length], zero padded; the masked position; whether the question was cut.

    Raises:
      ConfigError: the prompt alone does not fit.
    """
    before, after = split_prompt(prompt)
    lead, bridge = (tokenizer.encode(part) for part in before.split("{question}"))
    tail = tokenizer.encode(after)
    room = length - 3 - len(lead) - len(bridge) - len(tail)  # start, mask, end
    if room < 1:
        raise ConfigError(f"prompt={prompt!r} leaves no room for a question in text_length={length} tokens")
    words = tokenizer.encode(question)
    head = [tokenizer.sot, *lead, *words[:room], *bridge]
    row = [*head, 0, *tail, tokenizer.eot]
    ids = np.zeros(length, np.int32)
    ids[: len(row)] = row
    return ids, len(head), len(words) > room


def question_kinds(questions: Sequence[str]) -> list[str]:
    """The first word of each question if it is what, who, how, where or when (as MSRVTT-QA counts), else "other"."""
    words = [re.match(r"\W*(\w*)", question.lower()) for question in questions]
    return [match[1] if match and match[1] in QUESTION_WORDS else "other" for match in words]


@dataclasses.dataclass
class Marks:
    """Credit of each question between 0 and 1, filled batch by batch; what is never filled is wrong."""

    expected: Float[np.ndarray, " questions"]
    best: Float[np.ndarray, " questions"]
    worst: Float[np.ndarray, " questions"]
    tied: Bool[np.ndarray, " questions"]

    @classmethod
    def empty(cls, count: int) -> "Marks":
        """All wrong."""
        return cls(np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count, bool))

    def add(
        self,
        rows: Int[np.ndarray, " batch"],
        logits: Float[np.ndarray, "batch vocab"],
        answer: Int[np.ndarray, " batch"],
        allowed: Candidates,
    ) -> None:
        """Mark the questions `rows`; `answer` is the right candidate's number, -1 if it is no candidate.

        Raises:
          NonFiniteError: a candidate's logit is not finite.
        """
        ranks = ranking.choice(logits[:, allowed.first_token], np.maximum(answer, 0))
        known = answer >= 0
        for target, which in ((self.expected, ranks), (self.best, ranks.optimistic), (self.worst, ranks.pessimistic)):
            target[rows] = known * ranking.probability_within(which, 1)
        self.tied[rows] = known & (ranks.tied > 0)


def score(
    marks: Marks, in_vocabulary: Bool[np.ndarray, " questions"], kinds: Sequence[str], allowed: Candidates
) -> dict[str, Any]:
    """Accuracies in percent.

    Args:
      marks: questions whose video is missing, and those whose answer is no candidate, stay wrong.
      in_vocabulary: the right answer is a candidate.
      kinds: type of each question.
      allowed: the candidates.

    Returns:
      "acc_all": over all questions, the headline; "acc_in_vocab": over those whose answer is a candidate, as
      InternVideo and All-in-one report; "coverage": share of those; "chance" (over all), "n", "n_in_vocab",
      "n_answers", "n_multi_token_answers", "n_colliding_answers", "n_tied_queries", "optimistic", "pessimistic",
      "per_type" {kind: {"n", "acc_all"}}.
    """
    known = int(in_vocabulary.sum())

    def share(credit: Float[np.ndarray, " questions"]) -> dict[str, float]:
        return {
            "acc_all": 100 * float(credit.mean()),
            "acc_in_vocab": 100 * float(credit[in_vocabulary].mean()) if known else 0.0,
        }

    return {
        **share(marks.expected),
        "coverage": 100 * known / len(in_vocabulary),
        "chance": 100 * known / len(in_vocabulary) / len(allowed.answers),
        "n": len(in_vocabulary),
        "n_in_vocab": known,
        "n_answers": len(allowed.answers),
        "n_multi_token_answers": allowed.n_multi_token,
        "n_colliding_answers": allowed.n_collisions,
        "n_tied_queries": int(marks.tied.sum()),
        "optimistic": share(marks.best),
        "pessimistic": share(marks.worst),
        "per_type": per_kind(kinds, 100 * marks.expected, "acc_all"),
    }
