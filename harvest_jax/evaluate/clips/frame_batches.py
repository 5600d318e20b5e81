"""The frames of an evaluation set in batches for a model."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from harvest_jax.errors import DataError
from harvest_jax.evaluate.clips.evaluation_set import EvaluationSet
from harvest_jax.evaluate.clips.frame_readers import ClipFrames, Frames
from harvest_jax.evaluate.clips.known_clips import KnownClips
from harvest_jax.evaluate.settings import TaskSettings
from harvest_jax.terminal import Progress

_WAITING = 2  # batches; more clips than in so many do not wait for others with as many frames


@dataclasses.dataclass(frozen=True)
class Batch:
    """Clips that were read; a clip of several views or crops occurs once for each.

    Attributes:
      numbers: of the clips in the set.
      views: which view or crop of its clip each is, from 0.
      frames: as the model needs them.
      distinct: different frames of each clip.
      converted: whether the colours of each were converted.
    """

    numbers: list[int]
    views: list[int]
    frames: UInt8[np.ndarray, "b t s s 3"]
    distinct: list[int]
    converted: list[bool]


def frame_batches(
    config: Any,
    data: EvaluationSet,
    settings: TaskSettings,
    unreadable: dict[int, str],
    progress: Progress,
    known: KnownClips | None = None,
) -> Iterator[Batch]:
    """Frames as the model needs them, `settings.batch_size` clips at a time (the last batch is smaller).

    At a rate (`settings.sampling` "fps") clips with other numbers of frames come in other batches, which are smaller if
    too many of them wait. Clips that `known` knows are left out.

    Clips that cannot be read are added to `unreadable`: clip number -> reason.

    Args:
      config: the model's.
      data, settings: what to read.
      unreadable: is filled.
      progress: called after each clip.
      known: see `FrameReader.read`.

    Raises:
      DataError: no clip could be read; a wrong root folder is not a score of 0 %.
    """
    size, resize = config.video.image_size, settings.resize or config.preprocessing.resize
    waiting: dict[int, list[tuple[int, int, Frames, int, bool]]] = {}  # by number of frames
    clips = data.frames(settings.frames, size, resize, settings.frame_sampling, known)
    for done, (number, clip) in enumerate(clips, start=1):
        if isinstance(clip, str):
            unreadable[number] = clip
        if not isinstance(clip, ClipFrames):
            clip = ClipFrames((), 0)
        for view, frames in enumerate(clip.views):
            batch = waiting.setdefault(len(frames), [])
            batch.append((number, view, frames, clip.distinct, clip.converted))
            if len(batch) == settings.batch_size or sum(map(len, waiting.values())) > _WAITING * settings.batch_size:
                yield _batch(waiting.pop(max(waiting, key=lambda count: len(waiting[count]))))
        progress(done, len(data.clips), "")
    while waiting:
        yield _batch(waiting.pop(next(iter(waiting))))
    if len(unreadable) == len(data.clips):
        number, reason = next(iter(unreadable.items()))
        raise DataError(
            f"none of the {len(data.clips)} videos of {data.name} could be read; the first, "
            f"{data.clips[number].video}: {reason} (is {data.folder_field} right?)"
        )


def _batch(rows: Sequence[tuple[int, int, Frames, int, bool]]) -> Batch:
    numbers, views, frames, distinct, converted = zip(*rows, strict=True)
    return Batch(list(numbers), list(views), np.stack(frames), list(distinct), list(converted))
