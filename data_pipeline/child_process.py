"""Bounds for the processes that read untrusted files: memory, no files written, and they end with their parent."""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def child_environment() -> dict[str, str]:
    """Environment variables for a child process that imports this package."""
    package = str(Path(__file__).resolve().parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    # BLAS threads would only reserve address space, which RLIMIT_AS counts
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}


def die_with_parent(parent: int) -> None:
    """In the child: ask Linux for SIGKILL when the parent process ends, whatever this process is doing then.

    Args:
      parent: its process id. If it has ended already, this process exits.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call
        os._exit(0)


def limit_resources(memory: int) -> None:
    """In the child: limit memory to `memory` bytes of address space; forbid writing files and core dumps."""
    for kind, limit in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # not every system has every limit
            resource.setrlimit(kind, (limit, limit))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an attempt to write raises an error and does not end the process
