"""Candidate answers to open-ended questions, and the token that represents each."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from harvest_jax.errors import DataError
from harvest_jax.input.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Candidates:
    """The answers that a model chooses from.

    Attributes:
      answers: as `normal` writes them, each once.
      first_token: the id of each answer's first token.
      n_multi_token: answers with more than one token.
      n_collisions: answers that share their first token with another one.
    """

    answers: tuple[str, ...]
    first_token: Int32[np.ndarray, " answers"]
    n_multi_token: int
    n_collisions: int


def normal(answer: str) -> str:
    """The form in which answers are compared: lower case, single spaces."""
    return " ".join(answer.lower().split())


def candidates(answers: Sequence[str], tokenizer: Tokenizer) -> Candidates:
    """The distinct answers and their tokens, in the order given.

    Raises:
      DataError: no answers, or one without a token.
    """
    distinct = tuple(dict.fromkeys(map(normal, answers)))
    tokens = [tokenizer.encode(answer) for answer in distinct]
    if not distinct:
        raise DataError("there are no candidate answers")
    if not all(tokens):
        raise DataError(f"the candidate answer {distinct[[bool(ids) for ids in tokens].index(False)]!r} has no words")
    first = np.array([ids[0] for ids in tokens], np.int32)
    _, place, count = np.unique(first, return_inverse=True, return_counts=True)
    return Candidates(distinct, first, sum(len(ids) > 1 for ids in tokens), int(np.sum(count[place] > 1)))


def read_answers(path: Path) -> list[str]:
    """Candidate answers: a text file with one in each line, or JSON (a list, or an object whose keys are the answers).

    Raises:
      DataError: the file cannot be read or holds none.
    """
    try:
        text = path.read_text("utf-8-sig")
        value = json.loads(text) if path.suffix.lower() == ".json" else text.splitlines()
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"answers {path}: {error}") from error
    if not isinstance(value, list | dict) or not all(isinstance(answer, str) for answer in value):
        raise DataError(f"answers {path}: must be a list of texts, or an object whose keys are texts")
    answers = [answer for answer in value if answer.strip()]
    if not answers:
        raise DataError(f"answers {path}: the file has no answers")
    return answers
