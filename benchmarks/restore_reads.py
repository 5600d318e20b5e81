"""How much each process reads when a run goes on: verifying the digests, and loading the arrays.

    python -m launch.local --processes 2 --script benchmarks/restore_reads.py -- FOLDER [MEGABYTES]

FOLDER is new. A state of so many megabytes (default 64) is split over the devices of all processes (fsdp), saved, and
restored. The bytes are those of the process's `read` calls (`rchar` of /proc/self/io); the files are in the page
cache.
"""

import sys
import time
from pathlib import Path

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from harvest_jax.checkpoint.checkpointer import Checkpointer
from harvest_jax.checkpoint.step_folders import StepFolders
from harvest_jax.train import distributed


def read_so_far() -> int:
    (line,) = (line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("rchar"))
    return int(line.split()[1])


def main() -> None:
    folder, megabytes = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 64
    distributed.initialize_from_environment()
    mesh = jax.make_mesh((jax.device_count(),), ("fsdp",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("fsdp"))
    rows = np.random.default_rng(0).random((1024, megabytes * 256), np.float32)  # does not compress
    state = {"params": {"kernel": jax.make_array_from_callback(rows.shape, split, lambda index: rows[index])}}
    with Checkpointer(folder, 1, {}) as checkpointer:
        checkpointer.save_frozen({})
        checkpointer.save(1, state, None)
        checkpointer.wait()
    verified = {"bytes": 0, "seconds": 0.0}
    newest_good = StepFolders.newest_good

    def measured(folders: StepFolders) -> int | None:
        before, began = read_so_far(), time.perf_counter()
        step = newest_good(folders)
        verified.update(bytes=read_so_far() - before, seconds=time.perf_counter() - began)
        return step

    StepFolders.newest_good = measured  # type: ignore[method-assign]
    with Checkpointer(folder, 1, {}) as checkpointer:
        before, began = read_so_far(), time.perf_counter()
        restored, _ = checkpointer.restore(state, {}, None)
        taken, seconds = read_so_far() - before - verified["bytes"], time.perf_counter() - began - verified["seconds"]
    jax.block_until_ready(restored)
    print(
        f"rank {jax.process_index()} of {jax.process_count()}, a state of {megabytes} MiB: "
        f"{verified['bytes'] / 2**20:.1f} MiB in {verified['seconds']:.2f} s for the digests, "
        f"{taken / 2**20:.1f} MiB in {seconds:.2f} s for the arrays",
        flush=True,
    )


if __name__ == "__main__":
    main()
