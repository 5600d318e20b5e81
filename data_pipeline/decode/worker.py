"""The process that touches strangers' videos: takes one clip at a time, answers, and can be killed at any moment.

Started by worker_pool.py as `python -m data_pipeline.decode.worker CHANNEL PARENT MEMORY MODULE...`: a fresh
interpreter, not a copy of the parent (which may hold locks, threads or a GPU), and not `multiprocessing`'s spawn (which
would run the user's script a second time). Tasks and answers are JSON and plain bytes, never pickles: what a worker
says is no program for its parent.

The kernel keeps it within bounds: memory (RLIMIT_AS), time per clip (an alarm that ends the process, whatever it is
doing), no files written (RLIMIT_FSIZE), no core dumps, and SIGKILL as soon as the parent is gone.
"""

import contextlib
import ctypes
import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_ALARM_FACTOR = 1.5  # the parent kills at the limit and says so; the alarm is for workers whose parent cannot


def die_with_parent(parent: int) -> None:
    """Ask Linux for SIGKILL when the parent ends, in whatever state this process is then."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(0)


def limit_resources(memory: int) -> None:
    """Bound memory to `memory` bytes of address space; forbid writing files and core dumps."""
    for kind, limit in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # not every system has every limit
            resource.setrlimit(kind, (limit, limit))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an attempt to write is an error, not the end


def answer(task: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Do one task.

    A task has `path` (or `root` and `video`, a name that must stay below it), `start`, `end` and `spec` (the fields of
    DecodeSpec). With `place` (the fields of Place) the clip is a part of the file. With `record` (id, captions, extra)
    the answer's bytes are an encoded record, else the raw frames, whose shape is in the header. A video that cannot be
    used gives the header {"rejected": reason}.
    """
    from data_pipeline import media_paths
    from data_pipeline.decode.clip import DecodeSpec, decode_clip

    try:
        path = task["path"] if "path" in task else media_paths.resolve_below(task["root"], task["video"])
        spec = DecodeSpec(**task["spec"])
        jpegs = None
        if any(value not in (None, "") for value in task.get("place", {}).values()):
            from data_pipeline.decode import packed_clip
            from data_pipeline.sources.entry import Place

            packed = packed_clip.read_packed(path, Place(**task["place"]), spec, task["start"], task["end"])
            clip, jpegs = packed.clip, packed.jpegs
        else:
            clip = decode_clip(Path(path), spec, task["start"], task["end"])
        if "record" not in task:
            return {"shape": clip.frames.shape, "seconds": clip.seconds.tolist()}, clip.frames.tobytes()
        from data_pipeline.shards import shard_format

        record = shard_format.Record(
            id=task["record"]["id"],
            captions=tuple(task["record"]["captions"]),
            jpegs=jpegs or tuple(shard_format.encode_jpeg(frame) for frame in clip.frames),
            seconds=tuple(clip.seconds.tolist()),
            width=clip.width,
            height=clip.height,
            extra=task["record"]["extra"],
        )
        return {"frames": len(clip.frames)}, shard_format.encode(record)
    except media_paths.VideoRejected as error:
        return {"rejected": error.reason}, b""
    except MemoryError:
        return {"rejected": "too much memory: its pictures need more than a decoder gets"}, b""
    except Exception as error:  # a bug of ours or of a library costs one clip, and is named
        return {"rejected": f"decoder error: {type(error).__name__}: {str(error)[:200]}"}, b""


def serve(channel: Connection, modules: Sequence[str]) -> None:
    """Answer tasks until the channel closes; what they need is loaded first, so that no clip's time pays for it."""
    for name in modules:
        importlib.import_module(name)
    channel.send_bytes(b'{"ready": true}')
    while True:
        try:
            task = json.loads(channel.recv_bytes())
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, task["time_limit"] * _ALARM_FACTOR)
        header, payload = answer(task)
        signal.setitimer(signal.ITIMER_REAL, 0)
        channel.send_bytes(json.dumps(header).encode())
        channel.send_bytes(payload)


def main(argv: list[str]) -> None:
    """Entry point: the channel's file descriptor, the parent's process id, the memory in bytes, modules to load."""
    descriptor, parent, memory = (int(word) for word in argv[:3])
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        limit_resources(memory)
        serve(Connection(descriptor), argv[3:])


if __name__ == "__main__":
    main(sys.argv[1:])
