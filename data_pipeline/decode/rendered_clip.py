"""A clip of a generated world (harvest_jax/synthetic): drawn when it is wanted, from its number."""

import functools

import numpy as np
from PIL import Image

from data_pipeline.decode.decoded_clip import DecodedClip
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.media_paths import FilePart, VideoRejected
from harvest_jax.errors import DataError
from harvest_jax.synthetic.rows import SECONDS, World, frames_of, read_world


def rendered_clip(path: str, part: FilePart, spec: DecodeSpec, start: float | None, end: float | None) -> DecodedClip:
    """The frames of a clip at the middles of `spec.num_frames` equal parts of it.

    Args:
      path: of the world's file.
      part: `record` is the number of the clip, `field` its split.
      spec: how many frames, and their largest side.
      start, end: None; a clip is whole.

    Raises:
      VideoRejected: the file cannot be used, or has no such clip.
    """
    if start is not None or end is not None:
        raise VideoRejected("bad span: a generated clip is taken whole; leave start and end empty")
    world = _world(path)
    if part.record is None or part.field not in world.clips:
        raise VideoRejected(f"damaged: the world has no clip {part.record} of a split {part.field[:40]!r}")
    size = min(world.size, spec.short_side)
    frames = frames_of(world, part.field, part.record, spec.num_frames)
    if len(frames) < spec.min_frames:
        raise VideoRejected(f"too few frames: a single picture, {spec.min_frames} are needed")
    if size < world.size:
        frames = np.stack([np.asarray(Image.fromarray(f).resize((size, size), Image.Resampling.BOX)) for f in frames])
    seconds = (np.arange(len(frames)) + 0.5) * SECONDS / len(frames)
    return DecodedClip(frames, seconds, world.size, world.size)


@functools.lru_cache(maxsize=8)
def _world(path: str) -> World:
    try:
        return read_world(path)
    except DataError as error:
        raise VideoRejected(f"damaged: {error}") from error
