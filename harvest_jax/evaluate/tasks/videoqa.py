"""Open-ended questions, answered at a masked word: "Question: what is it? Answer: [mask]" through the decoder.

The decoder fills one token into one position, so a candidate answer is scored by the logit of its **first token**. That
is exact for answers of one token (nearly all of MSRVTT-QA's and MSVD-QA's). Candidates with the same first token cannot
be told apart: they tie, a tie is scored as the expectation of a random choice, and the result says how many candidates
are affected.

With `answer_from=head` a classifier that was fine-tuned scores the answers that it knows.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from harvest_jax.config.fields import Range
from harvest_jax.evaluate import tables
from harvest_jax.evaluate.benchmarks.named import find_benchmark
from harvest_jax.evaluate.clips.embeddings import VideoTextModel
from harvest_jax.evaluate.clips.evaluation_set import EvaluationSet
from harvest_jax.evaluate.masked_questions import MaskedSettings, logit_batches, prompted
from harvest_jax.evaluate.result.protocol import digest
from harvest_jax.evaluate.result.queries import Queries
from harvest_jax.evaluate.result.results import TaskOutput, TextFacts, mean_by_type
from harvest_jax.evaluate.scores import ranking
from harvest_jax.evaluate.trained_head import head_of
from harvest_jax.input.answers import Candidates, candidates, normal, read_answers
from harvest_jax.terminal import Progress

QUESTION_WORDS = ("what", "who", "how", "where", "when")


TEST_SET = "test_set"  # the value of `answers` that means all answers of the set itself


@dataclasses.dataclass(frozen=True)
class Settings(MaskedSettings):
    """`configs/eval/videoqa.py`."""

    answers: str
    max_answers: Annotated[int, Range(0, 1_000_000)] = 0
    answer_from: Literal["mask", "head"] = "mask"

    def contradictions(self) -> list[str]:
        """Also checks that the candidates are named."""
        faults = super().contradictions()
        if self.answer_from == "head":  # which knows its answers
            if self.answers or self.max_answers:
                faults.append("answers and max_answers have no use with answer_from=head: the head has its own answers")
        elif not self.answers and not self._answers_come_with_the_benchmark():
            faults.append(
                "answers is empty: name a file of candidate answers, usually those of the training set, or set "
                f"answers={TEST_SET} to choose among the test set's own answers (scores are higher and not comparable)"
            )
        elif self.answers == TEST_SET and self.max_answers:
            faults.append(f"max_answers={self.max_answers} is for a file of answers, not for answers={TEST_SET}")
        return faults

    @property
    def given_files(self) -> Mapping[str, Path | None]:
        """See `TaskSettings`."""
        if self.answer_from == "head" or self.answers == TEST_SET:
            return {"answers": None}
        return {"answers": Path(self.answers)} if self.answers else {}

    def _answers_come_with_the_benchmark(self) -> bool:
        return bool(self.data.benchmark) and "answers" in find_benchmark(self.data.benchmark).files


def run(model: VideoTextModel, data: EvaluationSet, settings: Settings, progress: Progress) -> TaskOutput:
    """Answer every question.

    Raises:
      ConfigError: the text is longer than the model takes, or the prompt leaves no room for a question.
      DataError: the model has no decoder or no head to answer from, a row has no question or answer, the answer file
        cannot be used, or no video could be read.
      NonFiniteError: a candidate's logit is not finite.
    """
    data = data.by_question()
    questions = data.column("question")
    asked = prompted(model, settings, questions)
    answers = [normal(answer) for answer in data.column("answer")]
    head = head_of(model, "videoqa") if settings.answer_from == "head" else None
    own = settings.answers == TEST_SET
    if head:
        allowed, columns = head_candidates(head.classes), np.arange(len(head.classes))
    else:
        listed = sorted(set(answers)) if own else read_answers(Path(settings.answers), settings.max_answers)
        allowed = candidates(listed, model.tokenizer)
        columns = allowed.first_token
    number = {answer: i for i, answer in enumerate(allowed.answers)}
    right = np.array([number.get(answer, -1) for answer in answers])
    greater, tied = np.zeros(len(questions), np.int64), np.zeros(len(questions), np.int64)
    unreadable: dict[int, str] = {}
    logits_of = head.head_answer_logits if head else None
    for rows, logits in logit_batches(model, data, settings, asked, unreadable, progress, logits_of):
        ranks = ranking.choice(logits[:, columns], np.maximum(right[rows], 0))
        greater[rows], tied[rows] = ranks.greater, ranks.tied
    missing = np.array([sample.clip in unreadable for sample in data.samples])
    ranks = ranking.Ranks(greater, tied, np.ones(len(questions), np.int64))
    types = data.column_if_complete("type") or question_types(questions)
    metrics = score(ranks, ~missing, right >= 0, types, allowed)
    metrics["n_cut_questions"] = asked.n_cut
    _, place, count = np.unique(columns, return_inverse=True, return_counts=True)
    alike = (count[place] > 1)[right[right >= 0]]  # answers that another candidate has the logit of
    clips = [data.clips[sample.clip] for sample in data.samples]
    identities = [data.identity(sample.clip) for sample in data.samples]
    # An answer that is no candidate counts as wrong, as a missing video does.
    lost = missing | (right < 0)
    of_query = ranking.Ranks(np.where(lost, len(allowed.answers), greater), np.where(lost, 0, tied), ranks.right)
    protocol = {
        "prompt": settings.prompt,
        "answers": len(allowed.answers),
        "answers_sha256": digest(sorted(allowed.answers)),
        "answers_from": "model" if head else "answers of the set itself" if own else "file",
        "answer_score": "logit of a fine-tuned head" if head else "logit of the first token",
        "text_length": asked.length,
    }
    return TaskOutput(
        protocol=protocol,
        content=[[one, *row] for one, *row in zip(identities, questions, answers, types, strict=True)],
        missing=missing,
        reasons=unreadable,
        metrics=metrics,
        queries=[Queries("answer", clips, questions, of_query, missing, types)],
        texts=TextFacts(len(questions), asked.length, asked.n_cut),
        files={} if own or head else {"answers": Path(settings.answers)},
        data_ties=100 * float(alike.mean()) if len(alike) else 0.0,
    )


def head_candidates(answers: Sequence[str]) -> Candidates:
    """The answers of a head, each of which has an output of its own: no token stands for one, and none collide."""
    return Candidates(tuple(answers), np.zeros(len(answers), np.int32), 0, 0)


def table(metrics: Mapping[str, Any]) -> list[str]:
    """The scores, and the accuracy of each type of question."""
    return [*tables.number_lines(metrics), "", *tables.columns(("n", "acc_all"), metrics["per_type"])]


def question_types(questions: Sequence[str]) -> list[str]:
    """The first word of each question if it is what, who, how, where or when (as MSRVTT-QA counts), else "other"."""
    words = [re.match(r"\W*(\w*)", question.lower()) for question in questions]
    return [match[1] if match and match[1] in QUESTION_WORDS else "other" for match in words]


def score(
    ranks: ranking.Ranks,
    answered: Bool[np.ndarray, " questions"],
    in_vocabulary: Bool[np.ndarray, " questions"],
    types: Sequence[str],
    allowed: Candidates,
) -> dict[str, Any]:
    """Accuracies in percent.

    Args:
      ranks: of the right answer among the candidates; used only where `answered` and `in_vocabulary`.
      answered: the video could be read; the other questions count as wrong.
      in_vocabulary: the right answer is a candidate; the other questions count as wrong in "acc_all".
      types: type of each question.
      allowed: the candidates.

    Returns:
      "acc_all": over all questions, the main score; "acc_in_vocab": over those whose answer is a candidate, as
      InternVideo and All-in-one report; "coverage": share of those; "chance" (over all), "n", "n_in_vocab",
      "n_answers", "n_multi_token_answers", "n_colliding_answers", "n_tied_queries", "optimistic", "pessimistic",
      "per_type" {type: {"n", "acc_all"}}.
    """
    known = int(in_vocabulary.sum())
    counted = answered & in_vocabulary

    def credit(which: ranking.Ranks) -> Float[np.ndarray, " questions"]:
        return np.where(counted, ranking.probability_within(which, 1), 0.0)

    def accuracies(which: ranking.Ranks) -> dict[str, float]:
        return {
            "acc_all": 100 * float(credit(which).mean()),
            "acc_in_vocab": 100 * float(credit(which)[in_vocabulary].mean()) if known else 0.0,
        }

    return {
        **accuracies(ranks),
        "coverage": 100 * known / len(in_vocabulary),
        "chance": 100 * known / len(in_vocabulary) / len(allowed.answers),
        "n": len(in_vocabulary),
        "n_in_vocab": known,
        "n_answers": len(allowed.answers),
        "n_multi_token_answers": allowed.n_multi_token,
        "n_colliding_answers": allowed.n_collisions,
        "n_tied_queries": int(np.sum(counted & (ranks.tied > 0))),
        "optimistic": accuracies(ranks.optimistic),
        "pessimistic": accuracies(ranks.pessimistic),
        "per_type": mean_by_type(types, 100 * credit(ranks), "acc_all"),
    }
