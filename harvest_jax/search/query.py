"""What is searched for: words, pictures and clips, with weights, as one vector.

a dog jumps                         words
a dog - on a beach                  less of what follows a minus between spaces
@cat.jpg + 0.5*at night             a picture or a clip, and half as much of the words
@clip.mp4#t=12,20                   seconds 12 to 20 of a clip (as in Media Fragments URI)
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from data_pipeline.decode.pool import VideoDecoder
from data_pipeline.decode.spec import TIME_LIMIT
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.pixels.square import prepare_clip
from harvest_jax.search.model import SearchModel
from harvest_jax.terminal import printable

_BETWEEN = re.compile(r"(?:^|\s)([+-])(?=\s|$)")
_WEIGHT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*\*\s*")
_TIMES = re.compile(r"#t=(\d+(?:\.\d+)?)?(?:,(\d+(?:\.\d+)?))?$")
_FEW = 1e-3  # length of a sum of unit vectors that cancel each other


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a query.

    Attributes:
      weight: negative after a minus, never 0.
      words: what to look for; empty if it is a file.
      path: a picture or a clip; None if it is words.
      start, end: seconds in the clip; None: of the file.
    """

    weight: float
    words: str = ""
    path: Path | None = None
    start: float | None = None
    end: float | None = None


@dataclasses.dataclass(frozen=True)
class Query:
    """A query that was embedded.

    Attributes:
      text: as it was asked.
      vector: unit length.
      of_words: it has no picture and no clip.
    """

    text: str
    vector: Float32[np.ndarray, " d"]
    of_words: bool


def parsed(text: str) -> list[Part]:
    """The parts of a query.

    Raises:
      ConfigError: there is nothing to search for, a weight of 0, or a part without words.
    """
    pieces = _BETWEEN.split(" ".join(text.split()))
    pieces = ["+", *pieces] if pieces[0].strip() else pieces[1:]  # it may begin with a sign
    parts = [_part(sign, piece.strip()) for sign, piece in zip(pieces[::2], pieces[1::2], strict=True)]
    if not parts:
        raise ConfigError('there are no words to search for: harvest search ... "a dog jumps over a log"')
    return parts


def _part(sign: str, piece: str) -> Part:
    found = _WEIGHT.match(piece)
    weight = float(found[1]) if found else 1.0
    piece = piece[found.end() :] if found else piece
    if not piece or weight == 0:
        why = "a weight of 0" if piece else f"nothing follows a {sign!r}"
        raise ConfigError(
            f'{why} in the query; parts look like this: "a dog" - "on a beach", "@cat.jpg + 0.5*at night"'
        )
    weight = -weight if sign == "-" else weight
    if not re.match(r"@\S", piece):
        return Part(weight, words=piece)
    times = _TIMES.search(piece)
    if times is None:
        return Part(weight, path=Path(piece[1:]).expanduser())
    start, end = (None if value is None else float(value) for value in times.groups())
    return Part(weight, path=Path(piece[1 : times.start()]).expanduser(), start=start, end=end)


def is_cut(parts: Sequence[Part], model: SearchModel) -> bool:
    """Whether the model reads only the beginning of some words."""
    limit = model.config.text.context_length - model.tokenizer.around
    return any(len(model.tokenizer.encode(part.words)) > limit for part in parts if part.path is None)


def embedded(text: str, parts: Sequence[Part], model: SearchModel, time_limit: float = TIME_LIMIT) -> Query:
    """A query as one vector: the sum of its parts' embeddings, each with its weight.

    Raises:
      DataError: a file cannot be read, or the parts cancel each other.
    """
    words = [part for part in parts if part.path is None]
    files = [part for part in parts if part.path is not None]
    rows = [*_of_words(words, model), *_of_files(files, model, time_limit)]
    weights = [part.weight for part in (*words, *files)]
    total = np.array(weights, np.float32) @ np.stack(rows)
    length = float(np.linalg.norm(total))
    if not length > _FEW:
        raise DataError(f"the parts of the query cancel each other: {printable(text, 100)}")
    return Query(text, total / np.float32(length), not files)


def _of_words(parts: Sequence[Part], model: SearchModel) -> list[np.ndarray]:
    return list(np.asarray(model.encode_text([part.words for part in parts]), np.float32)) if parts else []


def _of_files(parts: Sequence[Part], model: SearchModel, time_limit: float) -> list[np.ndarray]:
    if not parts:
        return []
    frames, size, resize = model.num_frames, model.config.video.image_size, model.config.preprocessing.resize
    clips = []
    with VideoDecoder(frames, size, len(parts[:2]), resize, time_limit) as decoder:
        for part in parts:
            decoded = decoder.decode(str(part.path), part.start, part.end)
            clips.append(prepare_clip(decoded, frames, size, resize))
    return list(np.asarray(model.encode_clips(np.stack(clips)), np.float32))
