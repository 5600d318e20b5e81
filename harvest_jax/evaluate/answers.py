"""Candidate answers to open-ended questions, and the token that represents each."""

import csv
import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


def read_answers(path: Path, most: int = 0) -> list[str]:
    """Candidate answers, from a list of answers or from the questions of a training set.

    A list: a text file with one answer in each line, or JSON (a list of texts, or an object whose keys are the
    answers). Questions: a JSON list of objects with `answer` (MSRVTT-QA's and MSVD-QA's train_qa.json) or a table with
    a column `answer` (TGIF-QA's, separated by tabs although its name ends in .csv); their answers come in falling
    frequency, equal ones in alphabetical order.

    Args:
      path: the file.
      most: only the first so many; 0: all.

    Raises:
      DataError: the file cannot be read or holds none.
    """
    try:
        text = path.read_text("utf-8-sig")
        value: Any = json.loads(text) if path.suffix.lower() == ".json" else _table_answers(text) or text.splitlines()
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise DataError(f"answers {path}: {error}") from error
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        counts = Counter(normal(row["answer"]) for row in value if isinstance(row.get("answer"), str))
        value = sorted(counts, key=lambda answer: (-counts[answer], answer))
    if not isinstance(value, list | dict) or not all(isinstance(answer, str) for answer in value):
        raise DataError(
            f"answers {path}: must be a list of texts, an object whose keys are texts, or questions with `answer`"
        )
    answers = [answer for answer in value if answer.strip()]
    if not answers:
        raise DataError(f"answers {path}: the file has no answers")
    return answers[:most] if most else answers


def _table_answers(text: str) -> list[dict[str, str]]:
    """The rows of a table of questions; none if the text is not one."""
    lines = text.splitlines()
    for delimiter in "\t,":
        header = lines[0].split(delimiter) if lines else []
        if {"question", "answer"} <= {cell.strip() for cell in header}:
            quotes = delimiter == ","
            rows = csv.reader(lines[1:], delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE)
            place = [cell.strip() for cell in header].index("answer")
            return [{"answer": row[place]} for row in rows if len(row) > place]
    return []
