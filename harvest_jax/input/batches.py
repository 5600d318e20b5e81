"""The iterator over batches that training draws from, and the end of its loader processes."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from multiprocessing import resource_tracker
from typing import Any

import grain
import numpy as np
from absl import flags

from harvest_jax.config.run import DataFields
from harvest_jax.errors import DataError, HarvestError
from harvest_jax.input.examples import Records

log = logging.getLogger(__name__)

Batch = dict[str, np.ndarray]


def num_workers(workers: int) -> int:
    """`data.workers` as a number of processes: -1 is one for each core that this process may run on."""
    return workers if workers >= 0 else len(os.sched_getaffinity(0))


class Batches(grain.DatasetIterator):
    """Iterator over batches whose whole state is the number of batches taken.

    Grain's own iterators keep a state whose form depends on the number of loader processes; this one opens them anew at
    the right batch, so a run may go on with any number of them. Orbax saves and restores it like a Grain iterator.
    """

    def __init__(self, batches: Any, sets: "ClipSets", data: DataFields) -> None:
        super().__init__()
        self.sets = sets
        self._allowed = data.bad_records
        self._damaged: set[tuple[int, int]] = set()
        self._batches = batches
        self._workers = num_workers(data.workers)
        self._prefetch = data.prefetch
        self._next = 0
        self._reader: Any = None
        if self._workers:
            _start_tracker_quietly()

    def __next__(self) -> Batch:
        self._assert_not_closed()
        self.start_prefetch()
        try:
            batch = next(self._reader)
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):
                raise
            raise HarvestError(
                f"a loader process died ({str(error).partition('.')[0]}), its own message may stand above: a script "
                'needs the guard if __name__ == "__main__"; if memory or /dev/shm ran out, lower data.workers or '
                "data.prefetch"
            ) from error
        self._next += 1
        self._count(batch.pop("damaged"))
        return batch

    def report(self, clips: int) -> dict[str, float]:
        """What the log says of the data after so many clips of all processes: epochs, and bad records if there are."""
        return self.sets.epochs(clips) | ({"bad_records": float(len(self._damaged))} if self._damaged else {})

    def _count(self, damaged: np.ndarray) -> None:
        for which, number in damaged[damaged[:, 1] >= 0].tolist():
            if (which, number) in self._damaged:  # in an earlier pass
                continue
            self._damaged.add((which, number))
            name = f"record {number} of {self.sets.folders[which]}"
            if len(self._damaged) > self._allowed:
                raise DataError(
                    f"{name} is damaged, and with it more than data.bad_records={self._allowed} are: write the shards "
                    "again with `harvest shards`"
                )
            log.warning(
                "%s is damaged: its neighbour takes its place (%d of %d allowed)",
                name,
                len(self._damaged),
                self._allowed,
            )

    def start_prefetch(self) -> None:
        """Open the readers and let them work ahead."""
        if self._reader is None:
            self._reader = iter(self._readers(self._batches[self._next :]))
            self._reader.start_prefetch()

    def get_state(self) -> dict[str, int]:
        """The number of the next batch."""
        return {"next_batch": self._next}

    def set_state(self, state: dict[str, int]) -> None:
        """Go to a batch; what was made ahead is thrown away."""
        self._close_reader()
        self._next = int(state["next_batch"])

    def close(self) -> None:
        """Stop the loader threads or processes; safe to call again."""
        self._closed = True
        self._close_reader()

    def __str__(self) -> str:
        return f"Batches(next={self._next}, workers={self._workers})"

    def _readers(self, batches: Any) -> Any:
        if self._workers == 0:
            threads = min(self._prefetch, os.cpu_count() or 1)
            return batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=self._prefetch))
        if not flags.FLAGS.is_parsed():  # Grain's processes read absl's flags, which only absl programs parse
            flags.FLAGS.mark_as_parsed()
        inline = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        options = grain.MultiprocessingOptions(
            num_workers=self._workers, per_worker_buffer_size=max(1, self._prefetch // self._workers)
        )
        return batches.to_iter_dataset(inline).mp_prefetch(options, worker_init_fn=_end_with_parent)

    def _close_reader(self) -> None:
        reader, self._reader = getattr(self, "_reader", None), None
        if reader is not None:
            reader.close()


class ClipSets:
    """What is trained on: one set of clips, or several that are mixed.

    Attributes:
      folders: of the sets.
      digest: of their shards as written; a run that goes on compares it with the one it began with.
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


def _start_tracker_quietly() -> None:
    """Start Python's tracker of shared memory so that it does not complain of what it has to clear away.

    At the end of a run the loaders are killed with batches made ahead, whose memory it frees, and warns of.
    """
    sys.warnoptions.append("ignore::UserWarning:multiprocessing.resource_tracker")  # which it inherits
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.pop()


def _end_with_parent(worker_index: int, worker_count: int) -> None:
    """End this loader process when the training process is gone, and not before.

    However the parent died: kill -9 leaves no time to tell. Ctrl-C and Slurm's warning reach every process of a run;
    the loaders leave them to the parent, which saves first and closes them with SIGKILL.
    """
    del worker_index, worker_count
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: Any) -> None:
    parent.join()
    os._exit(1)
