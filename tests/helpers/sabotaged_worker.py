"""A decoder worker for tests. The name of a file says what goes wrong: it hangs, crashes, takes too much memory.

Tests set `pool.WORKER_COMMAND` to WORKER_COMMAND, so that worker processes run this file.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from data_pipeline.decode import clip, worker

WORKER_COMMAND = (sys.executable, __file__)
real = clip.decode_clip


def sabotaged(path, spec, start=None, end=None, *sampling):
    what = Path(path).name
    if what == "hang.mp4":
        time.sleep(1000)
    if what == "slow.mp4":
        time.sleep(1)
    while what == "busy.mp4":
        pass
    if what == "hang_in_c.mp4":
        with contextlib.suppress(FileExistsError):
            os.mkfifo(f"{path}.begun")
        ctypes.PyDLL(None).sleep(1000)  # holds the interpreter's lock: no Python thread of the worker runs
    if what == "crash.mp4":
        ctypes.string_at(0)
    if what == "exit.mp4":
        os._exit(3)
    if what == "memory.mp4":
        bytearray(64 << 30)
    if what == "eat.mp4":
        eaten = []
        while True:
            eaten.append(bytes(64 << 20))
    if what == "write.mp4":
        Path(path).with_suffix(".stolen").write_bytes(b"x")
    if what == "bug.mp4":
        raise KeyError("bug")
    if what == "killed.mp4":
        os.kill(os.getpid(), signal.SIGKILL)
    if what in ("killed_once.mp4", "ended_once.mp4") and not Path(path).with_suffix(".tried").exists():
        os.mkfifo(Path(path).with_suffix(".tried"))
        os.kill(os.getpid(), signal.SIGKILL if what == "killed_once.mp4" else signal.SIGTERM)
    if what == "ended.mp4":
        os.kill(os.getpid(), signal.SIGTERM)
    if what == "meeting.mp4":  # done once another worker is at the same file, too
        os.mkfifo(f"{path}.{start}")
        patience = time.monotonic() + 20
        while len(list(Path(path).parent.glob(f"{what}.*"))) < 2:
            if time.monotonic() > patience:
                raise TimeoutError("the other process did not arrive")
            time.sleep(0.02)
    return real(path, spec, start, end, *sampling)


if __name__ == "__main__":
    clip.decode_clip = sabotaged
    worker.main(sys.argv[1:])
