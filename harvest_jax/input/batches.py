"""The iterator over batches that training draws from."""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from harvest_jax.config.run import DataFields
from harvest_jax.errors import HarvestError, HungError
from harvest_jax.input import loader_processes
from harvest_jax.input.damaged import DamagedRecords
from harvest_jax.input.examples import Records
from harvest_jax.input.process_share import BLOCKS
from harvest_jax.machine import available_cores

log = logging.getLogger(__name__)

Batch = dict[str, np.ndarray]

HUNG_SECONDS = 300.0  # without a batch from the loader processes, until the run ends with an error
STOP_SECONDS = 3.0  # the same when the run is asked to stop, until this process reads the batch itself


def num_workers(workers: int) -> int:
    """`data.workers` as a number of processes: -1 is one for each core that this process may run on."""
    return workers if workers >= 0 else available_cores()


class Batches(grain.DatasetIterator):
    """Iterator over batches. Its state is the number of batches taken, the rule of shares, and the damaged records met.

    Grain's own iterators have a state whose form depends on the number of loader processes. This one opens them anew at
    the right batch, so a run may go on with any number of them. Orbax saves and restores it like a Grain iterator.

    Attributes:
      sets: the clips.
      damaged: the damaged records met so far.
      stop_requested: whether the run is to stop soon; then a batch is not waited for if the loader processes hang.
    """

    def __init__(self, batches: Mapping[str, Any], sets: "ClipSets", data: DataFields, damaged: DamagedRecords) -> None:
        """Begin at the first batch.

        Args:
          batches: those of this process as a Grain dataset, by the name of the rule that divides a batch among
            processes: `process_share.BLOCKS`, or "" of runs that earlier versions began.
          sets, data, damaged: what is read, and how.
        """
        super().__init__()
        self.sets = sets
        self.damaged = damaged
        self.stop_requested: Callable[[], bool] = lambda: False
        self._batches, self._share = batches, BLOCKS
        self._workers = num_workers(data.workers)
        self._prefetch = data.prefetch
        self._next = 0
        self._reader: Any = None
        if self._workers:
            loader_processes.start_tracker_quietly()

    def __next__(self) -> Batch:
        self._assert_not_closed()
        self.start_prefetch()
        try:
            batch = self._next_from_processes() if self._workers else next(self._reader)
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):
                raise
            raise HarvestError(
                f"a loader process ended ({str(error).partition('.')[0]}); see its own message above if there is one. "
                'A script needs the guard if __name__ == "__main__"; if memory or /dev/shm ran out, lower data.workers '
                "or data.prefetch"
            ) from error
        self._next += 1
        damaged = batch.pop("damaged")
        self.damaged.found((which, number) for which, number in damaged.tolist() if number >= 0)
        return batch

    def report(self, clips: int) -> dict[str, float]:
        """What the log says of the data after so many clips of all processes: epochs, and bad records if there are."""
        return self.sets.epochs(clips) | ({"bad_records": float(len(self.damaged))} if self.damaged else {})

    def start_prefetch(self) -> None:
        """Open the readers and let them work ahead."""
        if self._reader is None:
            self._reader = iter(self._readers(self._batches[self._share][self._next :]))
            if self._workers:
                starter = threading.Thread(target=_start, args=(self._reader,))
                starter.start()
                starter.join()
            else:
                self._reader.start_prefetch()

    def get_state(self) -> dict[str, Any]:
        """The number of the next batch; the rule of shares, if it has a name; the damaged records, if there are any."""
        optional = {"share": self._share, "damaged": self.damaged.get_state()}
        return {"next_batch": self._next} | {name: value for name, value in optional.items() if value}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to a batch; those that were made ahead are discarded. A state without a rule is of earlier versions."""
        self._close_reader()
        self._next = int(state["next_batch"])
        self._share = state.get("share", "")
        self.damaged.set_state(state.get("damaged", []))

    def close(self) -> None:
        """Stop the loader threads or processes; may be called again."""
        self._closed = True
        self._close_reader()

    def __str__(self) -> str:
        return f"Batches(next={self._next}, workers={self._workers})"

    def _next_from_processes(self) -> Batch:
        """The next batch, with a bounded wait: a loader process may be stopped, or blocked on a disk without end."""
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(self._reader, answers), name="next batch", daemon=True).start()
        began = time.monotonic()
        while True:
            try:
                answer = answers.get(timeout=0.2)
            except queue.Empty:
                waited = time.monotonic() - began
                if waited > STOP_SECONDS and self.stop_requested():
                    log.warning("no batch for %.0f s: this process reads the last one itself", waited)
                    self._close_reader()
                    self._workers = 0
                    self.start_prefetch()
                    return next(self._reader)
                if waited > HUNG_SECONDS:
                    raise HungError(
                        f"no batch for {waited:.0f} s; the loader processes: {loader_processes.states()}. Check the "
                        "disk that holds the shards, then run the same command again"
                    ) from None
            else:
                if isinstance(answer, BaseException):
                    raise answer
                return answer

    def _readers(self, batches: Any) -> Any:
        if self._workers == 0:
            threads = min(self._prefetch, available_cores())
            return batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=self._prefetch))
        if not flags.FLAGS.is_parsed():  # Grain's processes read absl's flags, which only absl programs parse
            flags.FLAGS.mark_as_parsed()
        inline = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        options = grain.MultiprocessingOptions(
            num_workers=self._workers, per_worker_buffer_size=max(1, self._prefetch // self._workers)
        )
        return batches.to_iter_dataset(inline).mp_prefetch(options, worker_init_fn=loader_processes.end_with_parent)

    def _close_reader(self) -> None:
        reader, self._reader = getattr(self, "_reader", None), None
        if reader is not None and self._workers:
            loader_processes.close(reader)
        elif reader is not None:
            reader.close()


def _start(reader: Any) -> None:
    loader_processes.block_signals()
    reader.start_prefetch()


def _read(reader: Any, answers: "queue.SimpleQueue[Any]") -> None:
    loader_processes.block_signals()
    try:
        answers.put(next(reader))
    except BaseException as error:  # raised again by the thread that waits
        answers.put(error)


class ClipSets:
    """What is trained on: one set of clips, or several that are mixed.

    Attributes:
      folders: of the sets.
      digest: of their shards as written; a resumed run compares it with that of its start.
      clips: how many each set has.
      num_clips: of all together.
    """

    def __init__(self, sets: Sequence[Records], shares: tuple[float, ...]) -> None:
        self.folders = [records.folder for records in sets]
        self.digest = ",".join(records.digest for records in sets)
        self.clips = tuple(len(records) for records in sets)
        self.num_clips = sum(self.clips)
        names = [os.path.basename(os.path.abspath(records.folder)) for records in sets]
        if len(set(names)) < len(names):
            names = [records.folder for records in sets]
        titles = [f"epoch/{name}" for name in names] if len(names) > 1 else ["epoch"]
        self._passes = {title: share / len(of) for title, share, of in zip(titles, shares, sets, strict=True)}

    def epochs(self, clips: int) -> dict[str, float]:
        """How often the clips of each set were seen, after so many of all: `epoch`, or `epoch/FOLDER` for each set."""
        return {title: clips * rate for title, rate in self._passes.items()}
