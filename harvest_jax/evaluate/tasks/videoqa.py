"""Open-ended questions, answered at a masked word: "Question: what is it? Answer: [mask]" through the decoder.

The decoder fills one token into one position, so a candidate answer is scored by the logit of its **first token**. That
is exact for answers of one token (nearly all of MSRVTT-QA's and MSVD-QA's). Candidates with the same first token cannot
be told apart: they tie, a tie is scored as the expectation of a random choice, and the result says how many candidates
are affected.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Bool, Float

from harvest_jax.config.fields import Range
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.evaluate import prompts, ranking, tables
from harvest_jax.evaluate.answers import Candidates, candidates, normal, read_answers
from harvest_jax.evaluate.embeddings import VideoTextModel, frame_batches
from harvest_jax.evaluate.evaluation_set import EvaluationSet
from harvest_jax.evaluate.protocol import digest
from harvest_jax.evaluate.queries import Queries
from harvest_jax.evaluate.results import TaskOutput, TextFacts, mean_by_type
from harvest_jax.evaluate.settings import TaskSettings
from harvest_jax.terminal import Progress

QUESTION_WORDS = ("what", "who", "how", "where", "when")


@dataclasses.dataclass(frozen=True)
class Settings(TaskSettings):
    """`configs/eval/videoqa.py`."""

    prompt: str
    answers: str
    text_length: Annotated[int, Range(0, 77)]

    def contradictions(self) -> list[str]:
        """Also checks the prompt."""
        faults = super().contradictions()
        try:
            prompts.split_prompt(self.prompt)
        except ConfigError as error:
            faults.append(str(error))
        return faults


def run(model: VideoTextModel, data: EvaluationSet, settings: Settings, progress: Progress) -> TaskOutput:
    """Answer every question.

    Raises:
      ConfigError: the text is longer than the model takes, or the prompt leaves no room for a question.
      DataError: the model has no decoder, a row has no question or answer, the answer file cannot be used, or no video
        could be read.
      NonFiniteError: a candidate's logit is not finite.
    """
    if model.config.decoder is None:
        raise DataError(f"{model.name} has no decoder for masked words: it can embed but not answer")
    questions = data.column("question")
    answers = [normal(answer) for answer in data.column("answer")]
    listed = read_answers(Path(settings.answers)) if settings.answers else sorted(set(answers))
    allowed = candidates(listed, model.tokenizer)
    number = {answer: i for i, answer in enumerate(allowed.answers)}
    right = np.array([number.get(answer, -1) for answer in answers])
    length = settings.text_length or model.config.text.context_length
    if length > model.config.text.context_length:
        raise ConfigError(f"text_length={length}, but this model takes {model.config.text.context_length} tokens")
    texts = [prompts.prompt_ids(model.tokenizer, settings.prompt, question, length) for question in questions]
    ids = np.stack([row for row, _, _ in texts])
    slot = np.array([mask for _, mask, _ in texts], np.int32)

    rows_of: dict[int, list[int]] = {}
    for row, sample in enumerate(data.samples):
        rows_of.setdefault(sample.clip, []).append(row)
    greater, tied = np.zeros(len(questions), np.int64), np.zeros(len(questions), np.int64)
    unreadable: dict[int, str] = {}
    for clips, frames in frame_batches(model, data, settings, unreadable, progress):
        pairs = [(position, row) for position, clip in enumerate(clips) for row in rows_of[clip]]
        for start in range(0, len(pairs), settings.batch_size):
            positions, rows = map(np.array, zip(*pairs[start : start + settings.batch_size], strict=True))
            logits = np.asarray(model.answer_logits(frames[positions], ids[rows], slot[rows]), np.float32)
            ranks = ranking.choice(logits[:, allowed.first_token], np.maximum(right[rows], 0))
            greater[rows], tied[rows] = ranks.greater, ranks.tied
    missing = np.array([sample.clip in unreadable for sample in data.samples])
    ranks = ranking.Ranks(greater, tied, np.ones(len(questions), np.int64))
    types = data.column_if_complete("type") or question_types(questions)
    metrics = score(ranks, ~missing, right >= 0, types, allowed)
    metrics["n_cut_questions"] = sum(cut for _, _, cut in texts)
    clips_of = [data.clips[sample.clip] for sample in data.samples]
    # An answer that is no candidate counts as wrong, as a missing video does.
    last = np.where(missing | (right < 0), len(allowed.answers), ranks.greater)
    of_query = ranking.Ranks(last, np.where(missing | (right < 0), 0, ranks.tied), ranks.right)
    protocol = {
        "prompt": settings.prompt,
        "answers": len(allowed.answers),
        "answers_sha256": digest(allowed.answers),
        "answers_from": "file" if settings.answers else "answers of the set itself",
        "answer_score": "logit of the first token",
        "text_length": length,
    }
    return TaskOutput(
        protocol=protocol,
        content=[[clip.key, *row] for clip, *row in zip(clips_of, questions, answers, types, strict=True)],
        missing=missing,
        reasons=unreadable,
        metrics=metrics,
        queries=[Queries("answer", clips_of, questions, of_query, missing, types)],
        texts=TextFacts(len(questions), length, metrics["n_cut_questions"]),
        files={"answers": Path(settings.answers)} if settings.answers else {},
    )


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
