"""Decoding in worker processes: a video that hangs, crashes or takes too much memory costs one clip and nothing else.

Results come in the order of the tasks, whatever the number of workers and however long each task takes.
"""

import abc
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
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int, UInt8

from data_pipeline.child_process import child_environment
from data_pipeline.decode.spec import TIME_LIMIT, DecodeSpec
from data_pipeline.media_paths import VideoRejected
from harvest_jax.errors import HarvestError
from harvest_jax.pixels.frame_sampling import Sampling

MEMORY_LIMIT = 4 << 30  # bytes of address space of a worker; an 8K video needs about 1.5 GB
WORKER_COMMAND = (sys.executable, "-m", "data_pipeline.decode.worker")
# How many times longer than its processor time a clip may take by the clock: other programs have the processor, too,
# and a slow disk uses none.
PATIENCE = 10.0
_START_LIMIT = 120.0  # seconds for a worker to start; it takes half a second on an idle machine
_CLIPS_PER_WORKER = 2000  # then a new process, so that memory leaks of libraries stay small
Span = tuple[str | Path, float | None, float | None]  # a file, and start and end in seconds; None: of the file
_AHEAD = 16  # results per worker that may wait for a slower clip before them
_MIDDLES = Sampling()


class DecodeResult(NamedTuple):
    """The result of one task.

    Attributes:
      header: of the worker's result, see `worker.run_task`; header["rejected"] is the reason of a failure.
      payload: its bytes.
      tries: 2 if the first worker was killed from outside.
    """

    header: dict[str, Any]
    payload: bytes
    tries: int = 1


@dataclasses.dataclass
class _Job:
    index: int
    message: bytes
    killed_before: bool = False
    received: int = 0  # windows that came


class _Worker:
    """One process and its channel; `job` is its current task, `ready` is whether it has started."""

    def __init__(self, memory_limit: int, modules: Sequence[str]):
        ours, theirs = multiprocessing.Pipe()
        arguments = [*WORKER_COMMAND, str(theirs.fileno()), str(os.getpid()), str(memory_limit), *modules]
        try:
            self.process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=child_environment(),
            )
        finally:
            theirs.close()
        self.channel: Connection = ours
        self.job: _Job | None = None
        self.ready = False
        self.done = 0
        self.deadline = time.monotonic() + _START_LIMIT

    def give(self, job: _Job, patience: float) -> None:
        self.job, self.deadline = job, time.monotonic() + patience
        message = job.message
        if job.received:  # of a worker that was killed from outside
            message = json.dumps(json.loads(message) | {"skip": job.received}).encode()
        with contextlib.suppress(OSError):  # it ended while idle: reading from the channel shows that
            self.channel.send_bytes(message)

    def kill(self) -> int:
        """End the process; return its exit status (negative: the signal that had ended it before this call)."""
        status = self.process.poll()
        self.process.kill()
        self.process.wait()
        self.channel.close()
        return status if status is not None else -signal.SIGKILL


_Manager = TypeVar("_Manager")


class ClosedAtItsEnd(abc.ABC):
    """A context manager that calls its `close` at the end."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the worker processes."""

    def __enter__(self: _Manager) -> _Manager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class DecoderPool(ClosedAtItsEnd):
    """Worker processes that run `worker.run_task`; a context manager that ends them all.

    Args:
      workers: maximum number of processes; each is started when there is work for it.
      time_limit: seconds of processor time for one clip; by the clock PATIENCE times as long.
      memory_limit: bytes of address space of each process.
      modules: imported when a process starts, outside the time limit of its first clip.
      ahead: results per worker that may wait for a slower one before them; it bounds the memory.
    """

    def __init__(
        self,
        workers: int = 1,
        time_limit: float = TIME_LIMIT,
        memory_limit: int = MEMORY_LIMIT,
        modules: Sequence[str] = ("data_pipeline.decode.clip",),
        ahead: int = _AHEAD,
    ):
        self.workers, self.time_limit, self.memory_limit = max(1, workers), time_limit, memory_limit
        self.modules, self.ahead = modules, max(1, ahead)
        self._patience = PATIENCE * time_limit
        self._pool: list[_Worker] = []

    def close(self) -> None:
        """Kill the workers; unfinished tasks are lost."""
        while self._pool:
            self._pool.pop().kill()

    def map(self, tasks: Iterable[dict[str, Any]]) -> Iterator[DecodeResult]:
        """One result per task, in the order of the tasks; tasks are taken as workers become free."""
        source = iter(tasks)
        pending: collections.deque[_Job] = collections.deque()
        finished: dict[int, DecodeResult] = {}
        following = taken = 0  # number of the next result to yield, and of the next task to take
        exhausted = False
        limits = {"time_limit": self.time_limit, "patience": self._patience}
        try:
            while True:
                while not exhausted and taken - following < self.workers * self.ahead and self._has_room(pending):
                    task = next(source, None)
                    if task is None:
                        exhausted = True
                    else:
                        pending.append(_Job(taken, json.dumps(task | limits).encode()))
                        taken += 1
                self._hand_out(pending)
                if following in finished:
                    yield finished.pop(following)
                    following += 1
                elif exhausted and following == taken:
                    return
                else:
                    for job, result in self._receive(pending):
                        finished[job.index] = result._replace(tries=1 + job.killed_before)
        finally:
            for worker in [worker for worker in self._pool if worker.job is not None]:
                self._drop(worker)  # the caller closed the generator early

    def stream(self, tasks: Iterable[dict[str, Any]]) -> Iterator[tuple[int, DecodeResult]]:
        """Results of tasks with several, as they come: the task's number, and the result.

        The last result of a task has no "more" in its header. A worker waits until its result is taken, so memory does
        not grow with the length of a file.
        """
        source = iter(tasks)
        pending: collections.deque[_Job] = collections.deque()
        taken = ended = 0
        exhausted = False
        limits = {"time_limit": self.time_limit, "patience": self._patience}
        try:
            while True:
                while not exhausted and self._has_room(pending):
                    task = next(source, None)
                    if task is None:
                        exhausted = True
                    else:
                        pending.append(_Job(taken, json.dumps(task | limits).encode()))
                        taken += 1
                if exhausted and ended == taken:
                    return
                self._hand_out(pending)
                for job, result in self._receive(pending):
                    ended += "more" not in result.header
                    yield job.index, result
        finally:
            for worker in [worker for worker in self._pool if worker.job is not None]:
                self._drop(worker)

    def _has_room(self, jobs: collections.deque[_Job]) -> bool:
        return len(jobs) < self.workers - sum(worker.job is not None for worker in self._pool)

    def _hand_out(self, jobs: collections.deque[_Job]) -> None:
        while len(self._pool) < self.workers and len(jobs) > sum(worker.job is None for worker in self._pool):
            self._pool.append(_Worker(self.memory_limit, self.modules))
        for worker in self._pool:
            if jobs and worker.ready and worker.job is None:
                worker.give(jobs.popleft(), self._patience)

    def _receive(self, pending: collections.deque[_Job]) -> Iterator[tuple[_Job, DecodeResult]]:
        """Wait for the next event; yield the results that came, and those of workers that failed."""
        busy = [worker for worker in self._pool if worker.job is not None or not worker.ready]
        patience = min(worker.deadline for worker in busy) - time.monotonic()
        talking = wait([worker.channel for worker in busy], max(0.0, patience))
        for worker in busy:
            job = worker.job
            if worker.channel in talking:
                try:
                    result = self._read(worker)
                except (EOFError, OSError, ValueError):
                    result = self._result_of_dead_worker(worker, pending)
                if job is not None and result is not None:
                    yield job, result
            elif time.monotonic() > worker.deadline:
                self._drop(worker)
                if job is None:
                    raise HarvestError(f"a decoder process did not start within {_START_LIMIT:.0f} s")
                yield job, self._too_slow()

    def _read(self, worker: _Worker) -> DecodeResult | None:
        header = json.loads(worker.channel.recv_bytes())
        if not worker.ready:
            worker.ready = True
            return None
        result = DecodeResult(header, worker.channel.recv_bytes())
        if header.get("more") and worker.job is not None:
            worker.job.received += 1
            worker.deadline = time.monotonic() + self._patience
            return result
        worker.job = None
        worker.done += 1
        if worker.done >= _CLIPS_PER_WORKER or str(header.get("rejected", "")).startswith("too much memory"):
            self._drop(worker)
        return result

    def _result_of_dead_worker(self, worker: _Worker, pending: collections.deque[_Job]) -> DecodeResult | None:
        """The result for the clip whose worker ended; None if the clip is tried again (worker killed from outside)."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(1.0)  # its channel closes a moment before its status is known
        status = self._drop(worker)
        if worker.job is None:
            raise HarvestError(
                f"a decoder process ends when it starts (status {status}); to see the error, run "
                f"{' '.join(WORKER_COMMAND)} 0 {os.getpid()} {self.memory_limit}"
            )
        if status == -signal.SIGALRM:
            return self._too_slow()
        if status == -signal.SIGPROF:
            return DecodeResult({"rejected": f"timeout: more than {self.time_limit:g} s of processor time"}, b"")
        if status == -signal.SIGKILL and not worker.job.killed_before:
            worker.job.killed_before = True  # e.g. because another process used up the memory of the machine
            pending.appendleft(worker.job)
            return None
        what = f"signal {-status}" if status < 0 else f"status {status}"
        return DecodeResult({"rejected": f"crash: the decoder process crashed ({what})"}, b"")

    def _too_slow(self) -> DecodeResult:
        return DecodeResult({"rejected": f"timeout: not decoded within {self._patience:g} s"}, b"")

    def _drop(self, worker: _Worker) -> int:
        self._pool.remove(worker)
        return worker.kill()


class ViewedClip(NamedTuple):
    """A decoded clip.

    Attributes:
      frames: uint8 RGB, each picture once.
      views: the frames of each view, as numbers of `frames`.
    """

    frames: UInt8[np.ndarray, "T H W 3"]
    views: list[Int[np.ndarray, " _"]]


class VideoDecoder(ClosedAtItsEnd):
    """Frames of single videos, decoded in worker processes; for embedding, evaluation and search.

    with VideoDecoder(num_frames=8, short_side=224, fit="crop") as decoder:
        frames = decoder.decode("a.mp4")

    `num_frames`, `short_side` and `fit` are those of `DecodeSpec`; `sampling` says which frames. With `fit` the
    workers send small squares: eight frames of 1920 x 1080 are 50 MB, eight squares of 224 pixels are 1.2 MB.
    """

    def __init__(
        self,
        num_frames: int = 16,
        short_side: int = 256,
        workers: int = 1,
        fit: str = "",
        time_limit: float = TIME_LIMIT,
        memory_limit: int = MEMORY_LIMIT,
        sampling: Sampling = _MIDDLES,
    ):
        self.spec = DecodeSpec(num_frames=num_frames, short_side=short_side, fit=fit)
        self.sampling = sampling
        # A clip of many views and crops is as large as many clips.
        self._pool = DecoderPool(workers, time_limit, memory_limit, ahead=_AHEAD // (sampling.views * sampling.crops))

    def close(self) -> None:
        """End the workers."""
        self._pool.close()

    def decode(
        self, path: str | Path, start: float | None = None, end: float | None = None
    ) -> UInt8[np.ndarray, "T H W 3"]:
        """Up to `num_frames` evenly spaced RGB frames; fewer if the clip has fewer different ones.

        Args:
          path: the video.
          start: seconds in the file; None: its start.
          end: seconds in the file; None: its end.

        Raises:
          VideoRejected: the file cannot be used; the message names the file and the reason.
        """
        results = list(self._pool.map([self._task(path, start, end)]))
        result = self._result(path, results[0])
        if isinstance(result, VideoRejected):
            raise result
        return result.frames

    def decode_all(self, spans: Iterable[Span]) -> Iterator[UInt8[np.ndarray, "T H W 3"] | VideoRejected]:
        """For each span, in order, its frames as from `decode`, or why there are none; all workers decode at once."""
        for clip in self.decode_views(spans):
            yield clip if isinstance(clip, VideoRejected) else clip.frames

    def decode_views(self, spans: Iterable[Span]) -> Iterator[ViewedClip | VideoRejected]:
        """As `decode_all`, with the frames of each view of `sampling`."""
        waiting: collections.deque[str | Path] = collections.deque()

        def tasks() -> Iterator[dict[str, Any]]:
            for path, start, end in spans:
                waiting.append(path)
                yield self._task(path, start, end)

        for result in self._pool.map(tasks()):
            yield self._result(waiting.popleft(), result)

    def _task(self, path: str | Path, start: float | None, end: float | None) -> dict[str, Any]:
        what = {"spec": dataclasses.asdict(self.spec), "sampling": dataclasses.asdict(self.sampling)}
        return {"path": os.fspath(path), "start": start, "end": end, **what}

    def _result(self, path: str | Path, result: DecodeResult) -> ViewedClip | VideoRejected:
        header = result.header
        if "rejected" in header:
            return VideoRejected(header["rejected"], path)
        frames = np.frombuffer(result.payload, np.uint8).reshape(header["shape"]).copy()
        return ViewedClip(frames, [np.array(view, np.int64) for view in header["views"]])
