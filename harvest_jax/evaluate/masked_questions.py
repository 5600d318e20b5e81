"""Questions answered at a masked word: their prompts, and the decoder's logits at the mask, in batches."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import numpy as np
from jaxtyping import Float, Float32, Int, Int32

from harvest_jax.config.fields import Range
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.evaluate.clips.embeddings import VideoTextModel
from harvest_jax.evaluate.clips.evaluation_set import EvaluationSet
from harvest_jax.evaluate.clips.frame_batches import frame_batches
from harvest_jax.evaluate.settings import TaskSettings
from harvest_jax.input.question_prompt import prompt_ids, split_prompt
from harvest_jax.terminal import Progress

# Prepared clips, token ids [B, L] and slots [B] to scores, as `VideoTextModel.answer_logits`.
AnswerLogits = Callable[..., Float[np.ndarray, "b vocab"]]


@dataclasses.dataclass(frozen=True)
class MaskedSettings(TaskSettings):
    """The fields of tasks that read an answer at a masked word."""

    prompt: str
    text_length: Annotated[int, Range(0, 77)]

    def contradictions(self) -> list[str]:
        """Also checks the prompt."""
        faults = super().contradictions()
        if self.views * self.crops > 1:
            faults.append("this task reads answers, and views and crops average embeddings: give views=1 and crops=1")
        try:
            split_prompt(self.prompt)
        except ConfigError as error:
            faults.append(str(error))
        return faults


@dataclasses.dataclass(frozen=True)
class Prompted:
    """The questions of a set in the prompt.

    Attributes:
      ids: token ids, zero padded.
      slot: where each mask is.
      n_cut: questions that lost words because they are too long.
    """

    ids: Int32[np.ndarray, "questions length"]
    slot: Int32[np.ndarray, " questions"]
    n_cut: int

    @property
    def length(self) -> int:
        """Tokens of each text."""
        return self.ids.shape[1]


def prompted(model: VideoTextModel, settings: MaskedSettings, questions: Sequence[str]) -> Prompted:
    """The questions in the settings' prompt.

    Raises:
      ConfigError: the text is longer than the model takes, or the prompt leaves no room for a question.
      DataError: the model has no decoder.
    """
    if model.config.decoder is None:
        raise DataError(f"{model.name} has no decoder for masked words: it can embed but not answer")
    most = model.config.text.context_length
    length = settings.text_length or most
    if length > most:
        raise ConfigError(f"text_length={length}, but this model takes {most} tokens")
    texts = [prompt_ids(model.tokenizer, settings.prompt, question, length) for question in questions]
    return Prompted(
        np.stack([row for row, _, _ in texts]),
        np.array([mask for _, mask, _ in texts], np.int32),
        sum(cut for _, _, cut in texts),
    )


def logit_batches(
    model: VideoTextModel,
    data: EvaluationSet,
    settings: TaskSettings,
    asked: Prompted,
    unreadable: dict[int, str],
    progress: Progress,
    logits_of: AnswerLogits | None = None,
) -> Iterator[tuple[Int[np.ndarray, " rows"], Float32[np.ndarray, "rows vocab"]]]:
    """Row numbers and the logits at their masks, or those of `logits_of`, at most `settings.batch_size` rows at a time.

    Each clip is read once, however many questions it has. Rows whose clip cannot be read are left out, and the clip is
    added to `unreadable`: clip number -> reason.

    Raises:
      DataError: no clip could be read.
    """
    rows_of: dict[int, list[int]] = {}
    for row, sample in enumerate(data.samples):
        rows_of.setdefault(sample.clip, []).append(row)
    for batch in frame_batches(model.config, data, settings, unreadable, progress):
        pairs = [(position, row) for position, clip in enumerate(batch.numbers) for row in rows_of[clip]]
        for start in range(0, len(pairs), settings.batch_size):
            positions, rows = map(np.array, zip(*pairs[start : start + settings.batch_size], strict=True))
            yield (
                rows,
                np.asarray(
                    (logits_of or model.answer_logits)(batch.frames[positions], asked.ids[rows], asked.slot[rows]),
                    np.float32,
                ),
            )
