"""What is read of /proc: the processes of a family, their CPU time and memory; and the cores of an affinity mask."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from harvest_jax.machine import available_cores, available_memory, cpu_seconds, process_family, resident_bytes


def test_processes_are_counted_with_those_they_started():
    burn = "import time\nwhile True: time.process_time()"
    before = cpu_seconds()
    child = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"]
    )
    try:
        deadline = time.monotonic() + 60
        while len(process_family()) < 3 or cpu_seconds() < before + 0.3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        grandchildren = [process for process in process_family() if process not in (os.getpid(), child.pid)]
        assert grandchildren
    finally:
        child.kill()
        for process in grandchildren:
            os.kill(process, 9)
        child.wait()


def test_memory_is_what_is_touched():
    before = resident_bytes()
    held = np.ones(200_000_000, np.uint8)  # large beside what other tests left to be freed meanwhile
    assert resident_bytes() - before == pytest.approx(held.nbytes, rel=0.2)


def test_cores_are_those_of_the_affinity_mask():
    script = (
        "import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])\n"
        "from harvest_jax.machine import available_cores; print(available_cores())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert 1 <= available_cores() <= os.cpu_count()


def test_available_memory_is_less_than_the_machines():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < available_memory() <= total
