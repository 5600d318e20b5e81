"""Decoding in worker processes that can be killed: a video that hangs, crashes or swallows memory costs one clip.

Answers come in the order of the tasks, whatever the number of workers and however long each takes.
"""

import collections
import contextlib
import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from data_pipeline.decode.video_file import DecodeSpec
from data_pipeline.media_paths import VideoRejected
from harvest_jax.errors import HarvestError

TIME_LIMIT = 60.0  # seconds for one clip
MEMORY_LIMIT = 4 << 30  # bytes of address space of a worker; an 8K video needs about 1.5 GB
WORKER_COMMAND = (sys.executable, "-m", "data_pipeline.decode.worker")
_START_LIMIT = 120.0  # seconds for a worker to start; half a second where nothing else runs
_CLIPS_PER_WORKER = 2000  # then a fresh one: what libraries leak does not add up
Span = tuple[str | Path, float | None, float | None]  # a file, and start and end in seconds; None: of the file
_AHEAD = 16  # answers per worker that may wait for a slow clip before them


class Answer(NamedTuple):
    """What became of a task: what the worker says of it, and its bytes; header["rejected"] is why it failed.

    `tries` is 2 where the first worker was killed from outside.
    """

    header: dict[str, Any]
    payload: bytes
    tries: int = 1


@dataclasses.dataclass
class _Job:
    index: int
    message: bytes
    killed_before: bool = False


class _Worker:
    """One process and its channel; `job` is what it works on, `ready` whether it has started."""

    def __init__(self, memory_limit: int, modules: Sequence[str]):
        ours, theirs = multiprocessing.Pipe()
        package = str(Path(__file__).resolve().parents[2])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        # BLAS threads would only reserve the address space that RLIMIT_AS counts
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
        arguments = [*WORKER_COMMAND, str(theirs.fileno()), str(os.getpid()), str(memory_limit), *modules]
        try:
            self.process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment,
            )
        finally:
            theirs.close()
        self.channel: Connection = ours
        self.job: _Job | None = None
        self.ready = False
        self.done = 0
        self.deadline = time.monotonic() + _START_LIMIT

    def give(self, job: _Job, time_limit: float) -> None:
        self.job, self.deadline = job, time.monotonic() + time_limit
        with contextlib.suppress(OSError):  # it died while idle: reading from the channel will show it
            self.channel.send_bytes(job.message)

    def kill(self) -> int:
        """End it; its exit status (negative: the signal that had ended it before)."""
        status = self.process.poll()
        self.process.kill()
        self.process.wait()
        self.channel.close()
        return status if status is not None else -signal.SIGKILL


class DecoderPool:
    """Worker processes for tasks of decode_worker.answer; a context manager that leaves none behind.

    Args:
      workers: at most so many; started when there is work for them.
      time_limit: seconds for one clip.
      memory_limit: bytes of address space of each.
      modules: loaded at their start, so that no clip waits for it.
    """

    def __init__(
        self,
        workers: int = 1,
        time_limit: float = TIME_LIMIT,
        memory_limit: int = MEMORY_LIMIT,
        modules: Sequence[str] = ("data_pipeline.decode.clip",),
    ):
        self.workers, self.time_limit, self.memory_limit = max(1, workers), time_limit, memory_limit
        self.modules = modules
        self._pool: list[_Worker] = []

    def __enter__(self) -> "DecoderPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the workers; what they were doing is lost."""
        while self._pool:
            self._pool.pop().kill()

    def map(self, tasks: Iterable[dict[str, Any]]) -> Iterator[Answer]:
        """One answer per task, in their order; tasks are taken as workers become free."""
        source = iter(tasks)
        pending: collections.deque[_Job] = collections.deque()
        finished: dict[int, Answer] = {}
        following = taken = 0  # the next answer to give, the next task to take
        exhausted = False
        try:
            while True:
                while not exhausted and taken - following < self.workers * _AHEAD and self._has_room(pending):
                    task = next(source, None)
                    if task is None:
                        exhausted = True
                    else:
                        pending.append(_Job(taken, json.dumps(task | {"time_limit": self.time_limit}).encode()))
                        taken += 1
                self._hand_out(pending)
                if following in finished:
                    yield finished.pop(following)
                    following += 1
                elif exhausted and following == taken:
                    return
                else:
                    for job, answer in self._receive(pending):
                        finished[job.index] = answer._replace(tries=1 + job.killed_before)
        finally:
            for worker in [worker for worker in self._pool if worker.job is not None]:
                self._drop(worker)  # the caller stopped listening in the middle

    def _has_room(self, jobs: collections.deque[_Job]) -> bool:
        return len(jobs) < self.workers - sum(worker.job is not None for worker in self._pool)

    def _hand_out(self, jobs: collections.deque[_Job]) -> None:
        while len(self._pool) < self.workers and len(jobs) > sum(worker.job is None for worker in self._pool):
            self._pool.append(_Worker(self.memory_limit, self.modules))
        for worker in self._pool:
            if jobs and worker.ready and worker.job is None:
                worker.give(jobs.popleft(), self.time_limit)

    def _receive(self, pending: collections.deque[_Job]) -> Iterator[tuple[_Job, Answer]]:
        """Wait for the next event; the answers that came, those of workers that failed included."""
        busy = [worker for worker in self._pool if worker.job is not None or not worker.ready]
        patience = min(worker.deadline for worker in busy) - time.monotonic()
        talking = wait([worker.channel for worker in busy], max(0.0, patience))
        for worker in busy:
            job = worker.job
            if worker.channel in talking:
                try:
                    answer = self._read(worker)
                except (EOFError, OSError, ValueError):
                    answer = self._bury(worker, pending)
                if job is not None and answer is not None:
                    yield job, answer
            elif time.monotonic() > worker.deadline:
                self._drop(worker)
                if job is None:
                    raise HarvestError(f"a decoder process did not start within {_START_LIMIT:.0f} s")
                yield job, Answer({"rejected": f"timeout: not decoded within {self.time_limit:g} s"}, b"")

    def _read(self, worker: _Worker) -> Answer | None:
        header = json.loads(worker.channel.recv_bytes())
        if not worker.ready:
            worker.ready = True
            return None
        answer = Answer(header, worker.channel.recv_bytes())
        worker.job = None
        worker.done += 1
        if worker.done >= _CLIPS_PER_WORKER or str(header.get("rejected", "")).startswith("too much memory"):
            self._drop(worker)
        return answer

    def _bury(self, worker: _Worker, pending: collections.deque[_Job]) -> Answer | None:
        """A worker ended by itself: blame its clip, unless it was killed from outside, maybe for another's fault."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(1.0)  # its channel closes a moment before its status is known
        status = self._drop(worker)
        if worker.job is None:
            raise HarvestError(
                f"a decoder process ends at its start (status {status}): see why with "
                f"{' '.join(WORKER_COMMAND)} 0 {os.getpid()} {self.memory_limit}"
            )
        if status == -signal.SIGALRM:
            return Answer({"rejected": f"timeout: not decoded within {self.time_limit:g} s"}, b"")
        if status == -signal.SIGKILL and not worker.job.killed_before:
            worker.job.killed_before = (
                True  # out of memory by someone else's doing, or the thread that started it ended
            )
            pending.appendleft(worker.job)
            return None
        what = f"signal {-status}" if status < 0 else f"status {status}"
        return Answer({"rejected": f"crash: the decoder ended on it ({what})"}, b"")

    def _drop(self, worker: _Worker) -> int:
        self._pool.remove(worker)
        return worker.kill()


class VideoDecoder:
    """Frames of single videos, decoded in killable workers; for embedding and search.

    with VideoDecoder(num_frames=8, short_side=224, fit="crop") as decoder:
        frames = decoder.decode("a.mp4")

    `num_frames`, `short_side` and `fit` are those of `DecodeSpec`. With `fit` the workers hand over small squares:
    eight whole pictures of 1920 x 1080 would be 50 MB on their way here, as squares of 224 pixels they are 1.2 MB.
    """

    def __init__(
        self,
        num_frames: int = 16,
        short_side: int = 256,
        workers: int = 1,
        fit: str = "",
        time_limit: float = TIME_LIMIT,
        memory_limit: int = MEMORY_LIMIT,
    ):
        self.spec = DecodeSpec(num_frames=num_frames, short_side=short_side, fit=fit)
        self._pool = DecoderPool(workers, time_limit, memory_limit)

    def __enter__(self) -> "VideoDecoder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""
        self._pool.close()

    def decode(
        self, path: str | Path, start: float | None = None, end: float | None = None
    ) -> UInt8[np.ndarray, "T H W 3"]:
        """Up to `num_frames` evenly spaced RGB frames; fewer where the clip has fewer different ones.

        Raises:
          VideoRejected: the file cannot be used; names it and says why.
        """
        answers = list(self._pool.map([self._task(path, start, end)]))
        result = self._result(path, answers[0])
        if isinstance(result, VideoRejected):
            raise result
        return result

    def decode_all(self, spans: Iterable[Span]) -> Iterator[UInt8[np.ndarray, "T H W 3"] | VideoRejected]:
        """For each span, in order, its frames or the reason why there are none; all workers decode at once."""
        waiting: collections.deque[str | Path] = collections.deque()

        def tasks() -> Iterator[dict[str, Any]]:
            for path, start, end in spans:
                waiting.append(path)
                yield self._task(path, start, end)

        for answer in self._pool.map(tasks()):
            yield self._result(waiting.popleft(), answer)

    def _task(self, path: str | Path, start: float | None, end: float | None) -> dict[str, Any]:
        return {"path": os.fspath(path), "start": start, "end": end, "spec": dataclasses.asdict(self.spec)}

    def _result(self, path: str | Path, answer: Answer) -> UInt8[np.ndarray, "T H W 3"] | VideoRejected:
        if "rejected" in answer.header:
            return VideoRejected(answer.header["rejected"], path)
        return np.frombuffer(answer.payload, np.uint8).reshape(answer.header["shape"]).copy()
