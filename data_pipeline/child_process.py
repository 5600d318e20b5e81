"""Environment and limits of the processes that read untrusted files: memory, and no files written."""

import contextlib
import os
import resource
import signal
from pathlib import Path


def child_environment() -> dict[str, str]:
    """Environment variables for a child process that imports this package."""
    package = str(Path(__file__).resolve().parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    # BLAS threads would only reserve address space, which RLIMIT_AS counts
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}


def limit_resources(memory: int) -> None:
    """In the child: limit memory to `memory` bytes of address space; forbid writing files and core dumps."""
    for kind, limit in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # not every system has every limit
            resource.setrlimit(kind, (limit, limit))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an attempt to write raises an error and does not end the process
