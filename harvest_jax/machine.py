"""What this process may use of the machine."""

import os


def available_cores() -> int:
    """CPU cores that this process may run on: those of its affinity mask (taskset, Slurm, containers), at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1
