"""Texts around a class name.

The choice of sentences changes zero-shot accuracy by points, so they are part of a result's protocol.
"""

from collections.abc import Sequence

from harvest_jax.errors import ConfigError

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
