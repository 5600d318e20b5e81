"""What this process may use of the machine, and what it and the processes it started have used (Linux's /proc)."""

import contextlib
import os
from pathlib import Path


def available_cores() -> int:
    """CPU cores that this process may run on: those of its affinity mask (taskset, Slurm, containers), at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def available_memory() -> float:
    """Bytes of host memory that a process may still take, as Linux estimates it; infinite where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return float("inf")
    found = [1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else float("inf")


def process_family() -> list[int]:
    """The ids of this process and of all that it started, directly or not."""
    found = [os.getpid()]
    for process in found:  # grows while it is walked
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{process}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def cpu_seconds() -> float:
    """CPU time of the process family so far, of all cores together; ended processes count once they were waited for."""
    ticks = 0
    for process in process_family():
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))  # user, system, and both of children waited for
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_bytes() -> int:
    """Memory of the process family in bytes; what several processes share counts once (PSS)."""
    total = 0
    for process in process_family():
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += 1024 * int(line.split()[1])
    return total
