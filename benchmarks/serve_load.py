"""200 requests at once to `harvest serve` for a minute: all answered, and its memory.

    python -m benchmarks.serve_load --model runs/demo/export --videos runs/demo/clips/videos/retrieval

Starts the command, waits until the folder is embedded, and asks on 200 connections at once, each for the next thing as
soon as it has its answer: nine of ten ask for words, the others for the page, a poster and a part of a file. Prints one
JSON object; the memory (PSS of the server and its decoding processes) is that after the first tenth of the time and at
the end.
"""

import argparse
import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

import numpy as np

WORDS = [
    f"a {color} {shape} {motion}"
    for color in ("red", "blue")
    for shape in ("bar", "heart")
    for motion in ("grows", "moves up")
]
_LIMIT = 120.0  # seconds for one answer


@dataclasses.dataclass(frozen=True)
class Load:
    """What came of it; milliseconds are from the request to the whole answer."""

    answered: int
    failed: int
    per_second: float
    median_ms: float
    p99_ms: float


def first_result(address: tuple[str, int], words: str) -> dict[str, object]:
    """The best result for some words."""
    host, port = address
    with urllib.request.urlopen(f"http://{host}:{port}/api/search?{urlencode({'q': words})}", timeout=_LIMIT) as answer:
        return json.load(answer)["results"][0]


def load(address: tuple[str, int], at_once: int, seconds: float, words: Sequence[str]) -> Load:
    """Ask on `at_once` connections until the seconds have passed; each connection asks at least once."""
    found = first_result(address, words[0])
    paths = [f"/api/search?{urlencode({'q': one, 'top': 10})}" for one in words for _ in range(9)]
    paths += [f"/?{urlencode({'q': words[0]})}", str(found["poster"]), str(found["video"])]
    times: list[float] = []
    failed = [0]

    async def person(number: int, end: float) -> None:
        reader, writer = await asyncio.open_connection(*address)
        try:
            for turn in range(1_000_000):
                if turn and time.monotonic() > end:
                    return
                path = paths[(number * 7 + turn) % len(paths)]
                began = time.monotonic()
                try:
                    status = await asyncio.wait_for(_ask(reader, writer, path), _LIMIT)
                except (OSError, EOFError, TimeoutError):
                    failed[0] += 1
                    return
                failed[0] += status not in (200, 206)
                times.append(time.monotonic() - began)
        finally:
            writer.close()

    async def all_of_them() -> None:
        end = time.monotonic() + seconds
        await asyncio.gather(*(person(number, end) for number in range(at_once)))

    began = time.monotonic()
    asyncio.run(all_of_them())
    passed = time.monotonic() - began
    median, p99 = (1000 * np.quantile(times, [0.5, 0.99])).tolist() if times else (0.0, 0.0)
    return Load(len(times), failed[0], len(times) / passed, median, p99)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> int:
    part = "Range: bytes=0-9999\r\n" if path.startswith("/video") else ""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{part}\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = next(line.partition(":")[2] for line in head.splitlines() if line.startswith("content-length:"))
    await reader.readexactly(int(length))
    return int(head.split()[1])


def memory(process: int) -> int:
    """Bytes (PSS) of a process and its children."""
    total, todo = 0, [process]
    while todo:
        one = todo.pop()
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                todo += map(int, (task / "children").read_text().split())
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--videos", required=True)
    parser.add_argument("--at_once", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    command = [
        sys.executable,
        "-m",
        "harvest_jax",
        "serve",
        "--model",
        args.model,
        "--videos",
        args.videos,
        "--port",
        "0",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        address = ("127.0.0.1", 0)
        for line in server.stderr:
            print(line, end="", file=sys.stderr)
            if "http://" in line:
                address = ("127.0.0.1", int(line.split("http://127.0.0.1:")[1].split("/")[0]))
                break
        url = f"http://{address[0]}:{address[1]}/api/progress"
        while json.load(urllib.request.urlopen(url, timeout=_LIMIT))["state"] == "indexing":
            time.sleep(0.5)
        first = load(address, args.at_once, args.seconds / 10, WORDS)  # programs for all sizes of batches are compiled
        before = memory(server.pid)
        rest = load(address, args.at_once, args.seconds * 9 / 10, WORDS)
        after = memory(server.pid)
        os.kill(server.pid, signal.SIGTERM)
        server.communicate()
    result = {
        "command": f"python -m benchmarks.serve_load --seconds {args.seconds:g} --at_once {args.at_once}",
        "first_tenth": dataclasses.asdict(first),
        "rest": dataclasses.asdict(rest),
        "memory_mb": {"after_first_tenth": round(before / 1e6, 1), "at_end": round(after / 1e6, 1)},
        "exit_status": server.returncode,
    }
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
