"""Texts around a class name, and around a question with a masked answer.

The choice of sentences changes zero-shot accuracy by points, so they are part of a result's protocol.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from harvest_jax.errors import ConfigError
from harvest_jax.input.tokenizer import Tokenizer

# The sentences of ActionCLIP (github.com/sallymmx/ActionCLIP, utils/Text_Prompt.py); InternVideo and ViCLIP use them.
ACTION_16 = (
    "a photo of action {}",
    "a picture of action {}",
    "Human action of {}",
    "{}, an action",
    "{} this is an action",
    "{}, a video of action",
    "Playing action of {}",
    "{}",
    "Playing a kind of action, {}",
    "Doing a kind of action, {}",
    "Look, the human is {}",
    "Can you recognize the action of {}?",
    "Video classification of {}",
    "A video of {}",
    "The man is {}",
    "The woman is {}",
)

_MEDIA = ("photo", "video", "example", "demonstration")
_ACTORS = ("", "a person ", *(f"a person {verb} " for verb in ("using", "doing", "during", "performing", "practicing")))

# CLIP's sentences for Kinetics-700 (github.com/openai/CLIP, data/prompts.md), "a example" included.
KINETICS_28 = tuple(f"a {medium} of {actor}{{}}." for medium in _MEDIA for actor in _ACTORS)

_DOINGS = ("", *(f"{verb} " for verb in ("using", "doing", "during", "performing", "practicing")))

# CLIP's sentences for UCF101, from the same file: as Kinetics' without the bare name, and each also with "the person".
UCF_48 = tuple(
    f"a {medium} of {who} person {doing}{{}}." for doing in _DOINGS for who in ("a", "the") for medium in _MEDIA
)

SETS = {
    "action_16": ACTION_16,
    "kinetics_28": KINETICS_28,
    "ucf_48": UCF_48,
    "video_of": ("a video of {}.",),
    "name": ("{}",),
}


def templates(prompts: str | Sequence[str]) -> tuple[str, ...]:
    """A named set, one sentence with {}, or a list of such sentences.

    Raises:
      ConfigError: no such set, no sentence, or a sentence that does not contain {} exactly once.
    """
    if isinstance(prompts, str):
        if prompts in SETS:
            return SETS[prompts]
        if "{}" not in prompts:
            raise ConfigError(
                f"prompts={prompts!r} must be one of {', '.join(SETS)}, or contain {{}} for the class name"
            )
        prompts = (prompts,)
    for template in prompts:
        if template.count("{}") != 1:
            raise ConfigError(f"the prompt {template!r} must contain {{}} once, for the class name")
    if not prompts:
        raise ConfigError(f"prompts is empty: name a set ({', '.join(SETS)}) or give sentences with {{}}")
    return tuple(prompts)


def fill(prompt_templates: Sequence[str], names: Sequence[str]) -> list[str]:
    """Every sentence with every name, sentence by sentence (all names of the first sentence come first)."""
    return [template.replace("{}", name) for template in prompt_templates for name in names]


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
    tokenizer: Tokenizer, prompt: str, question: str, length: int
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
    room = length - 3 - len(lead) - len(bridge) - len(tail)  # start, mask, end
    if room < 1:
        raise ConfigError(f"prompt={prompt!r} leaves no room for a question in text_length={length} tokens")
    words = tokenizer.encode(question)
    head = [tokenizer.sot, *lead, *words[:room], *bridge]
    row = [*head, 0, *tail, tokenizer.eot]
    ids = np.zeros(length, np.int32)
    ids[: len(row)] = row
    return ids, len(head), len(words) > room
