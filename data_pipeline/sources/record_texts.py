"""The texts of a dataset's records, read in a separate process with limited memory.

An ArrayRecord file of a few kilobytes can expand to gigabytes, and so can the numbers of an example. Such a file ends
the process that reads it, and its remaining records are lost; nothing else is. Jobs and results are lines of JSON.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from data_pipeline.child_process import child_environment, limit_resources
from data_pipeline.media_paths import FilePart, VideoRejected, open_regular
from data_pipeline.sources import tfrecord
from data_pipeline.sources.captions import MAX_TEXT
from data_pipeline.sources.raw_row import RowFault
from data_pipeline.sources.tfds_fields import ClipFieldNames
from harvest_jax.errors import DataError
from harvest_jax.machine import die_with_parent
from harvest_jax.terminal import one_line

MAX_RECORD = 64 << 20  # bytes
_MEMORY = 2 << 30  # bytes of address space
_NESTING = 500  # levels of JSON in a record of `harvest shards`; the parent process accepts a little more
_Texts = Callable[[bytes], tuple[dict[str, Any], dict[str, Any]]]  # a record's cells and its extra columns


@dataclasses.dataclass(frozen=True)
class RecordTexts:
    """The texts of one record: the clip's own columns and the others, or why it cannot be used."""

    part: FilePart
    cells: dict[str, Any]
    extra: dict[str, Any] | None = None
    fault: str = ""


class TextReader:
    """Reads files of records one after the other; a context manager that ends its process.

    Args:
      kind: "array_record" or "tfrecord".
      fields: which fields hold the texts; None for records of `harvest shards`.
    """

    def __init__(self, kind: str, fields: ClipFieldNames | None):
        self._job = {"kind": kind, "fields": None if fields is None else dataclasses.asdict(fields)}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "TextReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def read(self, path: str) -> Iterator[RecordTexts]:
        """The records of a file in their order.

        Raises:
          RecordFault: the rest cannot be read; the records before it can be used.
        """
        process = self._process = self._process or _start()
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # the process has ended: reading shows that
            process.stdin.write(json.dumps(self._job | {"path": path}).encode() + b"\n")
            process.stdin.flush()
        for line in process.stdout:
            if (record := parse_result(line)) is None:
                return
            yield record
        self._end()
        raise tfrecord.RecordFault(
            "crash: the reading process ended at the next record, perhaps because it needs too much memory"
        )

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(BrokenPipeError), self._process:  # waits, and closes the pipes
                self._process = None


def parse_result(line: bytes | str) -> RecordTexts | None:
    """A line of the reading process as the texts of a record; None at the end of the file.

    Raises:
      RecordFault: the rest of the file cannot be read.
    """
    answer = json.loads(line)
    if "end" not in answer:
        return RecordTexts(FilePart(**answer.pop("part")), **answer)
    if answer["end"]:
        raise tfrecord.RecordFault(answer["end"])
    return None


def _start() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "data_pipeline.sources.record_texts", str(os.getpid())]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=child_environment())


# ---- in the process


def main(argv: list[str]) -> None:
    """Entry point; `argv`: the parent's process id. Jobs come on standard input until it closes."""
    die_with_parent(int(argv[0]))
    limit_resources(_MEMORY)
    importlib.import_module("data_pipeline.shards.shard_format")  # before the limit: its own imports recurse deeply
    sys.setrecursionlimit(_NESTING)
    for line in sys.stdin:
        for text in results(**json.loads(line)):
            print(text)
        sys.stdout.flush()


def results(path: str, kind: str, fields: dict[str, Any] | None) -> Iterator[str]:
    """The results of one job: a line for each record, and a last line with the fault that ended it, or ""."""
    texts = _own_texts if fields is None else _texts_of(ClipFieldNames(**fields))
    fault = ""
    try:
        for part, raw in _records(path, kind):
            yield _answer(part, raw, texts)
    except tfrecord.RecordFault as error:
        fault = str(error)
    yield json.dumps({"end": fault})


def _answer(part: FilePart, raw: bytes | None, texts: _Texts) -> str:
    about: dict[str, Any] = {"part": dataclasses.asdict(part), "cells": {}}
    try:
        if raw is None:
            raise RowFault(f"too large: a record of more than {MAX_RECORD:,} bytes")
        cells, extra = texts(raw)
        answer = json.dumps(about | {"cells": cells, "extra": extra})
        if len(answer) > MAX_TEXT:
            raise RowFault(f"too much text: the record's texts have more than {MAX_TEXT:,} bytes")
        return answer
    except RowFault as fault:
        return json.dumps(about | {"fault": str(fault)})


def _records(path: str, kind: str) -> Iterator[tuple[FilePart, bytes | None]]:
    """The records of a file and their positions; None for a record that is too large.

    Raises:
      RecordFault: the rest cannot be read; the records before it can be used.
    """
    try:
        with open_regular(path, max_bytes=1 << 62) as file:
            if kind == "tfrecord":
                for extent in tfrecord.extents(file):
                    small = extent.size <= MAX_RECORD
                    raw = os.pread(file.fileno(), extent.size, extent.offset) if small else None
                    yield FilePart(offset=extent.offset, size=extent.size), raw
                return
    except VideoRejected as error:
        raise tfrecord.RecordFault(error.reason) from error
    from array_record.python import array_record_module

    try:
        reader = array_record_module.ArrayRecordReader(path, "readahead_buffer_size:0")
        try:
            for index in range(reader.num_records()):
                raw = reader.read()  # in order: access by number would decompress a whole group for each record
                yield FilePart(record=index), raw if len(raw) <= MAX_RECORD else None
        finally:
            reader.close()
    except (RuntimeError, ValueError, IndexError) as error:
        raise tfrecord.RecordFault(f"damaged: {one_line(str(error).split(';')[0])}") from error


def _own_texts(raw: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    from data_pipeline.shards.shard_format import parse_record

    try:
        record = parse_record(raw)
    except DataError as error:
        raise RowFault("bad row: it is not a record of `harvest shards`") from error
    return {"id": record.id, "captions": record.captions}, record.extra


def _texts_of(fields: ClipFieldNames) -> _Texts:
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    def read(raw: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            found = tf_example_pb2.Example.FromString(raw).features.feature
            extra = {
                name: _values(found[name], 1)[0] for name in fields.extra if name in found and _values(found[name], 1)
            }
            cells: dict[str, Any] = {"captions": _values(found[fields.caption]) if fields.caption in found else []}
            if fields.id is not None and fields.id in found:
                cells["id"] = next(iter(_values(found[fields.id], 1)), None)
        except (DecodeError, ValueError) as error:
            raise RowFault("bad row: it is not a tf.train.Example with UTF-8 texts") from error
        return cells, extra

    return read


def _values(feature: Any, count: int | None = None) -> list[Any]:
    """A feature's values, or the first of them: texts, numbers."""
    kind = feature.WhichOneof("kind")
    if kind is None:
        return []
    values = getattr(feature, kind).value[:count]
    return [value.decode() for value in values] if kind == "bytes_list" else list(values)


if __name__ == "__main__":
    main(sys.argv[1:])
