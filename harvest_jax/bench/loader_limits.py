"""The rates that limit a loader: decoding alone and reading alone, on as many processes as it has cores."""

import multiprocessing
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import simplejpeg

from data_pipeline.shards import shard_format
from harvest_jax.errors import DataError, HarvestError
from harvest_jax.pixels.frame_sampling import segment_indices

_HELD = 64  # clips kept in memory while decoding alone is timed
_AT_ONCE = 16  # clips between two readings of the clock
_PATIENCE = 120  # seconds for a process to start


def limit_rates(folder: str, split: str, num_frames: int, processes: int, seconds: float) -> tuple[float, float]:
    """(Clips decoded, records read) a second, all processes together.

    Decoding: `num_frames` whole frames of a clip whose bytes are in memory. Reading: records, not decoded. Each is
    timed for half of `seconds`.

    Raises:
      DataError: the shards cannot be used.
      HarvestError: a process ended.
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    pipes = [context.Pipe(duplex=False) for _ in range(processes)]
    task = (folder, split, num_frames, seconds / 2)
    workers = [
        context.Process(target=_measure, args=(*task, number, barrier, theirs), daemon=True)
        for number, (_, theirs) in enumerate(pipes)
    ]
    for worker in workers:
        worker.start()
    for _, theirs in pipes:
        theirs.close()
    try:
        answers = [ours.recv() for ours, _ in pipes]
    except EOFError as error:
        raise HarvestError("a process that measured decoding ended; its own message is above") from error
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    for answer in answers:
        if isinstance(answer, str):
            raise DataError(answer)
    rates = np.array(answers)
    return float(rates[:, 0].sum()), float(rates[:, 1].sum())


def _measure(
    folder: str, split: str, num_frames: int, seconds: float, number: int, barrier: Any, answer: Connection
) -> None:
    """Measure in a process of its own, and send (decoding, reading), or why the shards cannot be used."""
    try:
        shards = shard_format.open_shards(folder, split)
        rng = np.random.default_rng(number)
        clips = [_frames(shards[index], num_frames, rng) for index in rng.integers(len(shards), size=_HELD).tolist()]
    except DataError as error:
        barrier.abort()
        answer.send(str(error))
        return
    try:
        barrier.wait(_PATIENCE)
    except threading.BrokenBarrierError:  # another process has sent why
        answer.send((0.0, 0.0))
        return
    decoding = _rate(lambda: [simplejpeg.decode_jpeg(jpeg, "RGB") for jpeg in clips[rng.integers(_HELD)]], seconds)
    barrier.wait(_PATIENCE)
    answer.send((decoding, _rate(lambda: shards[rng.integers(len(shards))], seconds)))


def _frames(raw: bytes, num_frames: int, rng: np.random.Generator) -> list[bytes]:
    """The frames that a view of a record takes, each decoded once to see that it can be.

    Raises:
      DataError: a frame cannot be decoded.
    """
    record = shard_format.parse_record(raw)
    try:
        chosen = [record.jpegs[which] for which in segment_indices(len(record.jpegs), num_frames, rng).tolist()]
        for jpeg in chosen:
            shard_format.decode_frame(jpeg)
    except ValueError as error:
        raise DataError(f"a frame of {record.id} cannot be decoded ({error}): make the shards again") from error
    return chosen


def _rate(do: Callable[[], Any], seconds: float) -> float:
    do()
    count, begin = 0, time.perf_counter()
    while time.perf_counter() < begin + seconds:
        for _ in range(_AT_ONCE):
            do()
        count += _AT_ONCE
    return count / (time.perf_counter() - begin)
