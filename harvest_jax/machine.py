"""What this process may use of the machine, what it and its children have used, and children that end with it."""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1


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


def parent_death_signal(number: int) -> Callable[[], None] | None:
    """For `subprocess.Popen(preexec_fn=...)`: the child gets this signal when the thread that started it ends.

    That is also so when the parent is killed with SIGKILL. None where the system is not Linux.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up here: between fork and exec little is safe

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, number)

    return ask


def die_with_parent(parent: int) -> None:
    """End this process with SIGKILL when its parent, whose process id is given, ends."""
    ask = parent_death_signal(signal.SIGKILL)
    if ask is not None:
        ask()
    if os.getppid() != parent:  # it ended before the call
        os._exit(0)
