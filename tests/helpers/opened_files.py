"""Which files the program opens."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harvest_jax.evaluate.result import provenance

_recorders: list[set[str]] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        for opened in _recorders:
            opened.add(os.path.realpath(os.fsdecode(arguments[0])))


sys.addaudithook(_note)  # it cannot be removed again; without a recorder it does nothing


@contextlib.contextmanager
def opened_below(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Names of the files below a folder that are opened within the block, except to compute digests for a result."""
    opened: set[str] = set()
    names: set[str] = set()
    compute = provenance.file_facts

    def unseen(files: object) -> object:
        _recorders.remove(opened)
        try:
            return compute(files)  # type: ignore[arg-type]
        finally:
            _recorders.append(opened)

    with monkeypatch.context() as patch:
        patch.setattr(provenance, "file_facts", unseen)
        _recorders.append(opened)
        try:
            yield names
        finally:
            _recorders.remove(opened)
            names |= {os.path.basename(path) for path in opened if path.startswith(f"{os.path.realpath(folder)}/")}
