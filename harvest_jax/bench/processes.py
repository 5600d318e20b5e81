"""What this process and those it started have used, from Linux's /proc."""

import contextlib
import os
from pathlib import Path


def family() -> list[int]:
    """This process and all below it."""
    found = [os.getpid()]
    for process in found:  # grows while it is walked
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{process}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def cpu_seconds() -> float:
    """Of all cores together, so far; of processes that have ended too, once they were waited for."""
    ticks = 0
    for process in family():
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))  # user, system, and both of children waited for
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_bytes() -> int:
    """Memory, with what is shared between processes shared out among them (PSS)."""
    total = 0
    for process in family():
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += 1024 * int(line.split()[1])
    return total
