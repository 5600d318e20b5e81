"""SHA-256 of files, remembered by path, size and modification time, so that they are not read again to know them."""

import collections
import concurrent.futures
import contextlib
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from harvest_jax.files import sha256_of, write_atomically

# A file that was changed so short before it was read might be changed again without another time: it is read each time.
TOO_NEW = 2.0  # seconds; FAT has the coarsest times
_THREADS = 4
_AHEAD = 8  # files that are read before their digests are asked for


class FileDigests:
    """Digests of files; those known from earlier processes are in a JSON file.

    Args:
      path: the JSON file; if it is missing or damaged, all files are read again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read(path)
        self._states: dict[str, tuple[int, int]] = {}  # of this process's answers
        self._now: dict[tuple[str, int, int], str] = {}
        self._new: dict[str, list[Any]] = {}

    def of(self, paths: Iterable[str]) -> Iterator[str | None]:
        """The SHA-256 (hex) of each file, in order; None for one that cannot be read. Reads a few files ahead."""
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
            asked: dict[str, concurrent.futures.Future[str | None]] = {}
            waiting: collections.deque[concurrent.futures.Future[str | None]] = collections.deque()
            for path in map(os.path.abspath, paths):
                if path not in asked:  # several clips of one video are hashed once
                    asked[path] = threads.submit(self._digest, path)
                waiting.append(asked[path])
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def is_current(self, path: str) -> bool:
        """Whether a file still has the size and time that it had when its digest was given."""
        path = os.path.abspath(path)
        return path in self._states and self._states[path] == _state(path)

    def write(self) -> None:
        """Add what is new to the JSON file. If that fails, later processes read these files again."""
        if not self._new:
            return
        with contextlib.suppress(OSError):
            content = {"files": {**_read(self._path), **self._new}}  # others may have written since
            write_atomically(self._path, json.dumps(content, ensure_ascii=True).encode(), durable=False)
            self._new = {}

    def _digest(self, path: str) -> str | None:
        state = _state(path)
        if state is None:
            return None
        self._states[path] = state
        known = self._known.get(path)
        if known is not None and tuple(known[:2]) == state:
            return str(known[2])
        found = self._now.get((path, *state))
        if found is None:
            read = time.time_ns()
            try:
                found = sha256_of(Path(path))
            except OSError:
                return None
            self._now[path, *state] = found
            if read - state[1] > TOO_NEW * 1e9:
                self._new[path] = [*state, found]
        return found


def _state(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
        return None
    return status.st_size, status.st_mtime_ns


def _read(path: Path) -> dict[str, list[Any]]:
    try:
        files = json.loads(path.read_bytes())["files"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    if not isinstance(files, dict):
        return {}
    return {
        name: entry
        for name, entry in files.items()
        if isinstance(entry, list) and [type(value) for value in entry] == [int, int, str]
    }
