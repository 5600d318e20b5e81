"""Posters of moments, and uploaded pictures and clips: decoded in processes with limits, as every video."""

import collections
import concurrent.futures
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

import numpy as np
import simplejpeg
from jaxtyping import UInt8

from data_pipeline.decode.pool import VideoDecoder
from data_pipeline.decode.spec import TIME_LIMIT
from harvest_jax.pixels.square import prepare_clip

POSTER_SIDE = 288  # pixels of a poster's shorter side
POSTER_QUALITY = 80
POSTERS_KEPT = 64 << 20  # bytes of posters in memory
POSTER_TIME = 10.0  # seconds of processor time for one
_Result = TypeVar("_Result")


class Decoders:
    """Threads that each own a decoding process.

    The thread that starts such a process must not end before it: the kernel would end the process with it.

    Args:
      threads: how many decode at once.
      make: the decoder of a thread.
    """

    def __init__(self, threads: int, make: Callable[[], VideoDecoder]) -> None:
        self._own = threading.local()
        self._made: list[VideoDecoder] = []
        self._make = make
        self._threads = concurrent.futures.ThreadPoolExecutor(threads, "decoder", initializer=self._begin)

    def submit(self, work: Callable[[VideoDecoder], _Result]) -> "concurrent.futures.Future[_Result]":
        """Do some work with a decoder, later."""
        return self._threads.submit(lambda: work(self._own.decoder))

    def close(self) -> None:
        """Drop what waits, and end the processes."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for decoder in self._made:
            decoder.close()

    def _begin(self) -> None:
        self._own.decoder = self._make()
        self._made.append(self._own.decoder)


def poster_decoders() -> Decoders:
    """For `poster`; two, so that a file that takes long does not hold up the others."""
    return Decoders(2, lambda: VideoDecoder(1, POSTER_SIDE, time_limit=POSTER_TIME))


def upload_decoders(model: Any) -> Decoders:
    """For `uploaded_clip`."""
    size, resize = model.config.video.image_size, model.config.preprocessing.resize
    return Decoders(1, lambda: VideoDecoder(model.num_frames, size, fit=resize, time_limit=TIME_LIMIT))


def poster(decoder: VideoDecoder, path: str, start: float | None, end: float | None) -> bytes:
    """The middle frame of a span as JPEG.

    Raises:
      VideoRejected: the file cannot be used.
    """
    frame = decoder.decode(path, start, end)[0]
    return simplejpeg.encode_jpeg(np.ascontiguousarray(frame), POSTER_QUALITY, "RGB", "420")


def uploaded_clip(decoder: VideoDecoder, content: BinaryIO, config: Any) -> UInt8[np.ndarray, "t s s 3"]:
    """An uploaded picture or clip as the model sees it.

    Args:
      decoder: one of `upload_decoders`.
      content: an open file, read from its beginning.
      config: the model's.

    Raises:
      VideoRejected: it cannot be used.
    """
    content.seek(0)
    with tempfile.NamedTemporaryFile(prefix="harvest_serve_") as file:  # a decoding process opens it by its name
        shutil.copyfileobj(content, file)
        file.flush()
        frames = decoder.decode(file.name)
    return prepare_clip(frames, decoder.spec.num_frames, config.video.image_size, config.preprocessing.resize)


class PosterCache:
    """The posters asked for last, by file, its state and the span; at most POSTERS_KEPT bytes. For one thread."""

    def __init__(self) -> None:
        self._kept: collections.OrderedDict[Any, bytes] = collections.OrderedDict()
        self._bytes = 0

    def get(self, key: Any) -> bytes | None:
        """The poster, None if it is not kept."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: Any, content: bytes) -> None:
        """Keep a poster, and drop those that were not asked for longest."""
        self._bytes += len(content) - len(self._kept.pop(key, b""))
        self._kept[key] = content
        while self._bytes > POSTERS_KEPT:
            self._bytes -= len(self._kept.popitem(last=False)[1])


def state_of(status: os.stat_result) -> tuple[int, int]:
    """What changes when a file does: its size and time of change."""
    return status.st_size, status.st_mtime_ns
