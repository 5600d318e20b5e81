"""The process that decodes untrusted videos: one clip at a time; it can be killed at any moment.

pool.py starts it as `python -m data_pipeline.decode.worker CHANNEL PARENT MEMORY MODULE...`: a new interpreter, not a
fork of the parent (which may hold locks, threads or a GPU), and not `multiprocessing`'s spawn (which would run the
user's script a second time). Tasks and results are JSON and plain bytes, never pickles, which could run code in the
parent.

The kernel enforces the limits: memory (RLIMIT_AS), time per clip (alarms that end the process whatever it is doing: one
of its processor time, a later one of the clock), no files written (RLIMIT_FSIZE), no core dumps, and SIGKILL as soon as
the parent is gone.
"""

import contextlib
import importlib
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from data_pipeline.child_process import limit_resources
from harvest_jax.machine import die_with_parent

_ALARM_FACTOR = 1.5  # the parent kills at its limit; the alarm is for the case that the parent cannot


def run_task(task: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Decode one clip.

    Args:
      task: `path` (or `root` and `video`, a name that must stay below it), `start` and `end` (seconds or None), `spec`
        (the fields of DecodeSpec), optionally `sampling` (the fields of Sampling), `part` (the fields of FilePart: the
        clip is a part of the file), `record` (id, captions, extra) and `earlier` (of `EarlierSplit.find`: the record is
        taken over from there if it still is what decoding would give). Or, instead of all but the name, `scan` (the
        arguments of `scenes.scan`): then the header is its result.

    Returns:
      a header and bytes. With `record`: {"frames", "damaged", two counts, "reads", "content", both of content.py;
      "taken_over": True if it was not decoded} and the encoded record. Without: {"shape", "seconds", "views",
      "converted"} and the raw frames, uint8 [T, H, W, 3]. For a video that cannot be used: {"rejected": reason} and no
      bytes.
    """
    from data_pipeline import media_paths
    from data_pipeline.decode.clip import decode_clip
    from data_pipeline.decode.spec import DecodeSpec
    from harvest_jax.pixels.frame_sampling import Sampling

    try:
        path = task["path"] if "path" in task else media_paths.resolve_below(task["root"], task["video"])
        if "scan" in task:
            from data_pipeline.decode.scenes import scan

            return scan(path, **task["scan"]), b""
        spec = DecodeSpec(**task["spec"])
        part = media_paths.FilePart(**task.get("part", {}))
        made_of = None
        if "record" in task:
            from data_pipeline.decode.content import Content

            made_of = Content(str(path), part, task["start"], task["end"])
        if "earlier" in task:
            from data_pipeline.decode.taken_over import taken_over

            found = taken_over(str(path), part, task["start"], task["end"], task["earlier"], task["record"])
            if found is not None:
                return found
        jpegs = None
        with made_of.noted() if made_of else contextlib.nullcontext():
            if part == media_paths.WHOLE_FILE:
                clip = decode_clip(Path(path), spec, task["start"], task["end"], Sampling(**task.get("sampling", {})))
            else:
                from data_pipeline.decode import packed_clip

                packed = packed_clip.read_packed(path, part, spec, task["start"], task["end"])
                clip, jpegs = packed.clip, packed.jpegs
        if "record" not in task:
            header = {
                "shape": clip.frames.shape,
                "seconds": clip.seconds.tolist(),
                "views": [view.tolist() for view in clip.views],
                "converted": clip.converted,
            }
            return header, clip.frames.tobytes()
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
        header = {"frames": len(clip.frames), "damaged": clip.damaged} | (made_of.described() if made_of else {})
        return header, shard_format.encode(record)
    except media_paths.VideoRejected as error:
        return {"rejected": error.reason}, b""
    except MemoryError:
        return {"rejected": "too much memory: its pictures need more than a decoder may use"}, b""
    except Exception as error:  # a bug here or in a library costs one clip, not the run
        return {"rejected": f"decoder error: {type(error).__name__}: {str(error)[:200]}"}, b""


def run_windows(task: dict[str, Any]) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Decode the windows of one file; the time limit holds for each window.

    Args:
      task: `path`, `spec` (the fields of DecodeSpec), `windows` (the fields of WindowRule), and optionally `skip`, the
        number of windows to leave out.

    Yields:
      for each window {"more": true, "start", "end", "shape"} and its frames, uint8 [T, S, S, 3]; then {} or
      {"rejected": reason} and no bytes.
    """
    from data_pipeline import media_paths
    from data_pipeline.decode.spec import DecodeSpec
    from data_pipeline.decode.windows import WindowRule, decode_windows

    last: dict[str, Any] = {}
    try:
        rule = WindowRule(**task["windows"])
        for window in decode_windows(Path(task["path"]), DecodeSpec(**task["spec"]), rule, task.get("skip", 0)):
            header = {"more": True, "start": window.start, "end": window.end, "shape": window.frames.shape}
            yield header, window.frames.tobytes()
    except media_paths.VideoRejected as error:
        last = {"rejected": error.reason}
    except MemoryError:
        last = {"rejected": "too much memory: its pictures need more than a decoder may use"}
    except Exception as error:  # a bug here or in a library costs one file, not the run
        last = {"rejected": f"decoder error: {type(error).__name__}: {str(error)[:200]}"}
    yield last, b""


def serve(channel: Connection, modules: Sequence[str]) -> None:
    """Do tasks until the channel closes. `modules` are imported first, outside the time limit of the first clip."""
    for name in modules:
        importlib.import_module(name)
    channel.send_bytes(b'{"ready": true}')
    while True:
        try:
            task = json.loads(channel.recv_bytes())
        except EOFError:
            return
        results = run_windows(task) if "windows" in task else map(run_task, (task,))  # within the limits below
        while True:
            signal.setitimer(signal.ITIMER_PROF, task["time_limit"])
            signal.setitimer(signal.ITIMER_REAL, task["patience"] * _ALARM_FACTOR)
            result = next(results, None)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            if result is None:
                break
            channel.send_bytes(json.dumps(result[0]).encode())
            channel.send_bytes(result[1])


def main(argv: list[str]) -> None:
    """Entry point; `argv`: file descriptor of the channel, parent's process id, bytes of memory, modules to import."""
    descriptor, parent, memory = (int(word) for word in argv[:3])
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent ends this process
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        limit_resources(memory)
        serve(Connection(descriptor), argv[3:])


if __name__ == "__main__":
    main(sys.argv[1:])
