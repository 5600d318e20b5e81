"""Which of a few clips fits a sentence: the one with the highest cosine (EgoMCQ).

A question is several rows, one for each clip: `question_id`, the same in all of them; `text`, the sentence; `answer`, 1
for the right clip and 0 for the others; and, if there are any, `type` (the same in all rows of a question).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from harvest_jax.errors import DataError
from harvest_jax.evaluate.clips.embeddings import VideoTextModel, embed_texts, embed_videos, text_facts
from harvest_jax.evaluate.clips.evaluation_set import EvaluationSet
from harvest_jax.evaluate.result.queries import Queries
from harvest_jax.evaluate.result.results import TaskOutput
from harvest_jax.evaluate.scores import ranking
from harvest_jax.evaluate.settings import TaskSettings
from harvest_jax.evaluate.tasks import multiple_choice
from harvest_jax.terminal import Progress

table = multiple_choice.table


@dataclasses.dataclass(frozen=True)
class Settings(TaskSettings):
    """`configs/eval/clip_choice.py`."""


@dataclasses.dataclass(frozen=True)
class Question:
    """One question: its rows in the set, and which of them (counted from 0) is right."""

    rows: tuple[int, ...]
    answer: int


def run(model: VideoTextModel, data: EvaluationSet, settings: Settings, progress: Progress) -> TaskOutput:
    """Choose a clip for every question.

    A question counts as wrong if one of its clips cannot be read, the right one or another: among fewer clips it would
    be another, easier question (our choice).

    Raises:
      DataError: a question has one clip, not exactly one right clip or several texts, or no video could be read.
      NonFiniteError: an embedding is zero or not finite.
    """
    texts, types = data.column("text"), data.column_if_complete("type")
    asked = read_questions(data.column("question_id"), data.column("answer"), texts)
    video = embed_videos(model, data, settings, progress)
    text = embed_texts(model, [texts[question.rows[0]] for question in asked], settings.batch_size)
    clip = np.array([sample.clip for sample in data.samples])
    answer = np.array([question.answer for question in asked])
    missing = np.array([bool(video.missing[clip[list(question.rows)]].any()) for question in asked])
    scores = [
        np.zeros(len(question.rows), np.float32)
        if lost
        else ranking.similarity(video.values[clip[list(question.rows)]], own[None])[:, 0]
        for question, lost, own in zip(asked, missing, text, strict=True)
    ]
    kinds = None if types is None else [types[question.rows[0]] for question in asked]
    ranks = multiple_choice.rank(scores, answer, missing)
    sentences = [texts[question.rows[0]] for question in asked]
    clips_of = [clip[list(question.rows)].tolist() for question in asked]
    right = [clips[question.answer] for question, clips in zip(asked, clips_of, strict=True)]
    content = zip(sentences, kinds or [""] * len(asked), right, clips_of, strict=True)
    return TaskOutput(
        protocol={"text_length": model.config.text.context_length, "missing_clip": "question counts as wrong"},
        content=[
            [text, kind, data.identity(one), sorted(map(data.identity, clips), key=str)]
            for text, kind, one, clips in content
        ],
        missing=missing,
        reasons=video.reasons,
        metrics=multiple_choice.score(ranks, np.array([len(question.rows) for question in asked]), missing, kinds),
        queries=[Queries("clip", [data.clips[one] for one in right], sentences, ranks, missing, kinds)],
        texts=text_facts(model, sentences),
    )


def read_questions(names: Sequence[str], answers: Sequence[str], texts: Sequence[str]) -> list[Question]:
    """The questions of a set, in the order in which they first appear.

    Args:
      names: `question_id` of each row.
      answers: "1" where the row's clip is the right one, "0" elsewhere.
      texts: of each row.

    Raises:
      DataError: another answer; or a question has one clip, not exactly one right clip or several texts.
    """
    rows_of: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows_of.setdefault(name, []).append(row)
    questions = []
    for name, rows in rows_of.items():
        given = [answers[row] for row in rows]
        if set(given) - {"0", "1"} or given.count("1") != 1 or len(rows) < 2:
            raise DataError(
                f"question {name}: needs two or more clips, `answer` 1 for one of them and 0 for the others, not "
                f"{', '.join(given)[:80]}"
            )
        if len({texts[row] for row in rows}) > 1:
            raise DataError(f"question {name}: its rows have different texts")
        questions.append(Question(tuple(rows), given.index("1")))
    return questions
