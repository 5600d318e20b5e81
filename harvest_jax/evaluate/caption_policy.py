"""How captions belong to videos in retrieval: one each, several that are queries of their own, or one paragraph."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.evaluate.benchmarks.benchmark import Captions
from harvest_jax.input.annotation_files import read_text

# What a config can ask for; "" takes the rows as they are.
Wanted = Literal["", "one", "several", "paragraph"]

_MEANING = {
    "one": "one caption for each video",
    "several": "several captions of a video, each a query of its own",
    "paragraph": "all captions of a video joined to one text",
    "none": "no captions",
}


def check(wanted: Wanted, benchmark: Captions, name: str) -> None:
    """Refuse a policy that is not the benchmark's, before anything is read.

    Joining captions that are meant as queries makes the task easier without a word: unmasked_teacher's R@1 of MSVD was
    first 72.2, with joined captions, and then corrected to 49.0 (its issues 12 and 22).

    Raises:
      ConfigError: they differ.
    """
    if wanted and wanted != benchmark:
        raise ConfigError(
            f"captions={wanted} ({_MEANING[wanted]}) is not how {name} is scored, which has {_MEANING[benchmark]}: "
            "the figures could not be compared with any other; leave captions empty"
        )


def read_bank(path: Path) -> list[str]:
    """The captions of a query bank: a UTF-8 text file with one in each line; empty lines are left out.

    Raises:
      DataError: the file cannot be read or holds none.
    """
    try:
        lines = read_text(path).splitlines()
    except DataError as error:
        raise DataError(f"captions of the query bank: {error}") from error
    captions = [line.strip() for line in lines if line.strip()]
    if not captions:
        raise DataError(f"captions of the query bank {path}: the file has none")
    return captions


def queries(
    wanted: Wanted, name: str, clips: Sequence[int], captions: Sequence[Sequence[str]]
) -> tuple[list[str], Int[np.ndarray, " queries"]]:
    """The caption queries of a set, and the clip of each.

    Args:
      wanted: the policy; "" makes each caption a query.
      name: of the set, for an error message.
      clips: of each row.
      captions: of each row. "paragraph" joins those of a clip with a space, in the order of the rows.

    Raises:
      DataError: the rows contradict the policy.
    """
    texts = [caption for row in captions for caption in row]
    owner = np.array([clip for clip, row in zip(clips, captions, strict=True) for _ in row], np.int64)
    several = len(texts) - len(np.unique(owner))
    if wanted == "one" and several:
        raise DataError(
            f"captions=one, but {name} has {len(texts)} captions of {len(texts) - several} clips: write "
            "captions=several (each a query of its own) or captions=paragraph (those of a clip joined)"
        )
    if wanted == "several" and not several:
        raise DataError(f"captions=several, but every clip of {name} has one caption: leave captions empty")
    if wanted != "paragraph":
        return texts, owner
    joined: dict[int, list[str]] = {}
    for clip, text in zip(owner.tolist(), texts, strict=True):
        joined.setdefault(clip, []).append(text)
    return [" ".join(own) for own in joined.values()], np.array(list(joined), np.int64)
