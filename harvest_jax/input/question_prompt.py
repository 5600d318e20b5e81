"""The text around a question with a masked answer, as token ids; training and evaluation share it."""

import numpy as np
from jaxtyping import Int32

from harvest_jax.errors import ConfigError
from harvest_jax.input.file_tokenizer import TextTokenizer


def split_prompt(prompt: str) -> tuple[str, str]:
    """The parts of a prompt before and after {mask}.

    Raises:
      ConfigError: the prompt does not contain {question} and {mask} once each, or {question} comes after {mask} (the
        text tower is causal: at the mask it has seen only the text before).
    """
    if prompt.count("{mask}") != 1 or prompt.count("{question}") != 1:
        raise ConfigError(f"prompt={prompt!r} must contain {{question}} and {{mask}} once each")
    before, after = prompt.split("{mask}")
    if "{question}" not in before:
        raise ConfigError(
            f"prompt={prompt!r} must have {{question}} before {{mask}}: the text tower reads from left to right"
        )
    return before, after


def prompt_ids(
    tokenizer: TextTokenizer, prompt: str, question: str, length: int
) -> tuple[Int32[np.ndarray, " length"], int, bool]:
    """Token ids of the prompt, filled with a question.

    Args:
      tokenizer: the model's.
      prompt: with {question} and {mask}.
      question: if it is too long for `length`, its last words are cut; the prompt's own words stay.
      length: number of tokens, start and end included.

    Returns:
      int32 ids [length], zero padded; the position of the mask; whether the question was cut.

    Raises:
      ConfigError: the prompt alone does not fit.
    """
    before, after = split_prompt(prompt)
    lead, bridge = (tokenizer.encode(part) for part in before.split("{question}"))
    tail = tokenizer.encode(after)
    room = length - tokenizer.around - 1 - len(lead) - len(bridge) - len(tail)  # 1: the mask
    if room < 1:
        raise ConfigError(f"prompt={prompt!r} leaves no room for a question in text_length={length} tokens")
    words = tokenizer.encode(question)
    head = [*([] if tokenizer.sot is None else [tokenizer.sot]), *lead, *words[:room], *bridge]
    row = [*head, 0, *tail, tokenizer.eot]
    ids = np.full(length, tokenizer.pad, np.int32)
    ids[: len(row)] = row
    return ids, len(head), len(words) > room
