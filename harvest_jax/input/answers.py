"""Candidate answers to open-ended questions, and the token that represents each."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int32

from harvest_jax.errors import DataError
from harvest_jax.input.annotation_files import holds_json, read_json, read_json_rows, read_table, read_text
from harvest_jax.input.annotation_records import Record
from harvest_jax.input.file_tokenizer import TextTokenizer

DELIMITERS: tuple[Literal["\t", ","], ...] = ("\t", ",")


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


def candidates(answers: Sequence[str], tokenizer: TextTokenizer) -> Candidates:
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
    answers). Questions: a JSON list or lines of JSON with `answer` (MSRVTT-QA's and MSVD-QA's train_qa.json; ClipBERT's
    .jsonl) or a table with the columns `question` and `answer` (TGIF-QA's, separated by tabs although its name ends in
    .csv); their answers come in falling frequency, equal ones in alphabetical order.

    Args:
      path: the file.
      most: only the first so many; 0: all.

    Raises:
      DataError: the file cannot be read, holds none, or a question has no answer.
    """
    answers = _answers(path)
    if not answers:
        raise DataError(f"answers {path}: the file has no answers")
    return answers[:most] if most else answers


def _answers(path: Path) -> list[str]:
    if holds_json(path):
        value = None if path.suffix.lower() == ".jsonl" else _whole_json(path)
        if value is None or (isinstance(value, list) and value and isinstance(value[0], dict)):
            return _by_frequency(read_json_rows(path))
        if not all(isinstance(answer, str) for answer in value):
            raise DataError(f"answers {path}: must be a list of texts, an object whose keys are texts, or questions")
        return [answer for answer in value if answer.strip()]
    header = next(iter(read_text(path).splitlines()), "")
    for delimiter in DELIMITERS:
        cells = {cell.strip().strip('"').lower() for cell in header.split(delimiter)}
        if {"question", "answer"} <= cells:
            return _by_frequency(read_table(path, ("question", "answer"), delimiter, quotes=delimiter == ","))
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def _whole_json(path: Path) -> Any:
    """The value of the file; None if it has several, one a line."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        first = next(line for line in text.splitlines() if line.strip())
        if first.lstrip().startswith("{") and first.rstrip().endswith("}"):
            return None
        return read_json(path, (list, dict))  # raises with the place of the fault


def _by_frequency(questions: Sequence[Record]) -> list[str]:
    counts = Counter(normal(question.text("answer")) for question in questions)
    return sorted(counts, key=lambda answer: (-counts[answer], answer))
