"""The rates that limit a loader: decoding alone and reading alone, on as many processes as it has cores."""

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import simplejpeg

from data_pipeline.shards import shard_format
from harvest_jax.errors import HarvestError
from harvest_jax.pixels.frame_sampling import segment_indices

_HELD = 64  # clips kept in memory while decoding alone is timed
_AT_ONCE = 16  # clips between two readings of the clock
_PATIENCE = 120  # seconds for a process to start


def limit_rates(folder: str, split: str, num_frames: int, processes: int, seconds: float) -> tuple[float, float]:
    """(Clips decoded, records read) a second, all processes together.

    Decoding: `num_frames` whole frames of a clip whose bytes are in memory. Reading: records, not decoded. Each is
    timed for half of `seconds`.

    Raises:
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
        rates = np.array([ours.recv() for ours, _ in pipes])
    except EOFError as error:
        raise HarvestError("a process that measured decoding ended; its own message is above") from error
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    return float(rates[:, 0].sum()), float(rates[:, 1].sum())


def _measure(
    folder: str, split: str, num_frames: int, seconds: float, number: int, barrier: Any, answer: Connection
) -> None:
    """Measure in a process of its own, and send (decoding, reading)."""
    shards = shard_format.open_shards(folder, split)
    rng = np.random.default_rng(number)
    clips = []
    for index in rng.integers(len(shards), size=_HELD).tolist():
        jpegs = shard_format.parse_record(shards[index]).jpegs
        clips.append([jpegs[which] for which in segment_indices(len(jpegs), num_frames, rng).tolist()])
    barrier.wait(_PATIENCE)
    decoding = _rate(lambda: [simplejpeg.decode_jpeg(jpeg, "RGB") for jpeg in clips[rng.integers(_HELD)]], seconds)
    barrier.wait(_PATIENCE)
    answer.send((decoding, _rate(lambda: shards[rng.integers(len(shards))], seconds)))


def _rate(do: Callable[[], Any], seconds: float) -> float:
    do()
    count, begin = 0, time.perf_counter()
    while time.perf_counter() < begin + seconds:
        for _ in range(_AT_ONCE):
            do()
        count += _AT_ONCE
    return count / (time.perf_counter() - begin)
