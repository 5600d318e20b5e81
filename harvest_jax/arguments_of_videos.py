"""Videos as arguments of Python functions: paths or arrays, one or many, checked one by one."""

import os
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

import jax
import numpy as np

from harvest_jax.errors import DataError

Array = np.ndarray | jax.Array
Video = str | os.PathLike[str] | Array
Videos = Video | Iterable[Video]
_VIDEOS = "a path, one clip as uint8 [T, H, W, 3], clips as uint8 [B, T, H, W, 3], or a sequence of paths or of clips"


def each_video(videos: Any) -> Iterator[Any]:
    """The clips of an argument, one by one: all paths as str, or all NumPy arrays uint8 [T, H, W, 3]."""
    if isinstance(videos, str | os.PathLike):
        videos = [videos]
    elif isinstance(videos, Array) and videos.dtype.kind != "U":
        if not is_clips(videos, 4) and not is_clips(videos, 5):
            raise DataError(f"videos must be {_VIDEOS}, not {described(videos)}")
        videos = np.asarray(videos if videos.ndim == 5 else videos[None])
    of_paths = None
    for number, video in enumerate(items_of(videos, "videos", _VIDEOS)):
        path = os.fspath(video) if isinstance(video, str | os.PathLike) else None
        if not isinstance(path, str) and not is_clips(video, 4):
            wanted = "a path (text) or a clip (uint8 [T, H, W, 3])"
            raise DataError(f"videos[{number}] must be {wanted}, not {described(video)}")
        if of_paths not in (None, path is not None):
            raise DataError(f"videos[{number}] is {described(video)}: give only paths or only arrays")
        of_paths = path is not None
        if path is None and 0 in video.shape:
            raise DataError(f"videos[{number}] is empty: {described(video)} as [T, H, W, 3]")
        yield np.asarray(video) if path is None else path
        del video  # an array would stay in memory while the next one is made


def is_clips(value: Any, ndim: int) -> bool:
    """Whether a value is one clip (`ndim` 4) or a batch of clips (5), whatever their size."""
    return isinstance(value, Array) and value.dtype == np.uint8 and value.ndim == ndim and value.shape[-1] == 3


def items_of(values: Any, name: str, wanted: str) -> Iterator[Any]:
    """Iterate over a sequence or generator; bytes and unordered collections are refused."""
    if isinstance(values, bytes | bytearray | Mapping | Set) or not isinstance(values, Iterable):
        raise DataError(f"{name} must be {wanted}, not {described(values)}")
    return iter(values)


def described(value: Any) -> str:
    """What was given, for an error: dtype and shape of an array, otherwise the type."""
    if isinstance(value, Array):
        return f"{value.dtype} {list(value.shape)}"
    return "None" if value is None else type(value).__name__
