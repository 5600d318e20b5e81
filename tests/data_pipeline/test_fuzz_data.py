"""Random content of files: reading always ends, in rows, rejects or one DataError.

`HARVEST_FUZZ_EXAMPLES=100000 pytest tests/data_pipeline/test_fuzz_data.py` runs longer.
"""

import contextlib
import csv
import io
import json
import os
import struct
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipeline.manifest import tables
from data_pipeline.manifest.read import iter_manifest
from data_pipeline.manifest.rows import ClipRow, Reject
from data_pipeline.shards.shard_format import Record, encode, parse_record
from data_pipeline.sources import record_texts
from data_pipeline.sources.tfrecord import masked_crc32c
from harvest_jax.errors import DataError
from tests.helpers.source_files import write_tar

EXAMPLES = int(os.environ.get("HARVEST_FUZZ_EXAMPLES", "40"))
FUZZ = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))

OWN_COLUMNS = ["id", "video", "caption", "captions", "split", "start", "end", "label", "question", "note", ""]
THEIRS = [
    "videoid",
    "page_dir",
    "name",
    "YoutubeID",
    "Start_timestamp",
    "End_timestamp",
    "Caption",
    "videoID",
    "timestamp",
]
COLUMNS = st.sampled_from([*OWN_COLUMNS, *THEIRS])
TEXTS = st.one_of(
    st.sampled_from(["a.mp4", "../a.mp4", "/etc/passwd", "http://x/a.mp4", "0:01:02.5", "1e400", "-1", "nan", "train"]),
    st.sampled_from(
        ["[['0:00:01', '0:00:02']]", "['a']", "{{}}", "[{[]}]", "[", "(" * 3000, "9" * 5000, "\ud800", "\0", "a\x1fb"]
    ),
    st.text(max_size=20),
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS)
CELLS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
ROWS = st.dictionaries(COLUMNS, CELLS, max_size=8)


def outcome(source: Path, **options: Any) -> list[ClipRow | Reject] | str:
    """What reading a source comes to; anything but rows, rejects and a DataError of one line is an error here."""
    try:
        found = list(iter_manifest([source], **options))
    except DataError as error:
        return one_line(error)
    for result in found:
        if isinstance(result, ClipRow):
            json.dumps(result.extra, allow_nan=False).encode()
            "\n".join((result.id, result.video, result.split, *result.captions)).encode()
        else:
            assert ": " in result.reason or result.reason == "empty caption"
            "\n".join((result.id, result.video, result.split, result.reason)).encode()
    return found


def one_line(error: DataError) -> str:
    assert "\n" not in str(error)
    assert len(str(error)) < 2000
    return str(error)


def read_bytes(name: str, content: bytes) -> list[ClipRow | Reject] | str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        return outcome(path)


def mutated(content: bytes, changes: list[tuple[int, int]], cut: int) -> bytes:
    """The content with some bytes changed, and cut off at the end."""
    data = bytearray(content)
    for at, value in changes:
        if data:
            data[at % len(data)] = value
    return bytes(data[: len(data) - cut % (len(data) + 1)]) if cut else bytes(data)


CHANGES = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=12)
CUT = st.one_of(st.just(0), st.integers(0, 1 << 20))


@FUZZ
@given(kind=st.sampled_from(["csv", "tsv", "jsonl", "json", "parquet", "tar"]), content=st.binary(max_size=600))
def test_any_bytes_as_any_kind_of_file(kind, content):
    read_bytes(f"m.{kind}", content)


@FUZZ
@given(
    kind=st.sampled_from([",", ";", "\t"]),
    header=st.lists(COLUMNS, max_size=8),
    lines=st.lists(st.lists(TEXTS), max_size=6),
)
def test_lines_of_cells(kind, header, lines):
    text = "\n".join(kind.join(cells) for cells in [header, *lines])
    read_bytes("m.tsv" if kind == "\t" else "m.csv", text.encode(errors="surrogatepass"))


@FUZZ
@given(
    header=st.sampled_from(
        [["video", "caption"], ["video", "caption", "split"], ["video", "caption", "split", "note"]]
    ),
    lines=st.lists(st.lists(st.sampled_from(["train", "val", "a dog", ""]), max_size=3), min_size=3, max_size=6),
    split=st.sampled_from([None, "train"]),
)
def test_every_line_of_a_table_is_a_row_or_a_reject(header, lines, split):
    table = [["a b.mp4", "x", *cells] for cells in lines]
    elsewhere = [
        cells
        for cells in table
        if split and len(cells) == len(header) and dict(zip(header, cells, strict=True)).get("split") == "val"
    ]
    file = io.StringIO()
    csv.writer(file).writerows([header, *table])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.csv")
        path.write_bytes(file.getvalue().encode(errors="surrogatepass"))
        found = outcome(path, split=split)
        if isinstance(found, list):
            assert len(found) == len(table) - len(elsewhere)
            assert all(result.split == "train" or split is None for result in found)


@FUZZ
@given(lines=st.lists(st.lists(st.text('ab",;\n\r\t \u20ac', max_size=8), min_size=3, max_size=3), max_size=6))
def test_a_table_that_a_program_wrote_is_read_as_it_is(lines):
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["video", "caption", "note"], *lines])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.csv")
        path.write_bytes(file.getvalue().encode())
        found = list(tables.read_rows(path))
    assert [list(row.cells.values()) for row in found] == lines
    assert not any(row.fault for row in found)


@FUZZ
@given(good=st.lists(st.booleans(), min_size=1, max_size=12), kind=st.sampled_from([",", "\t"]))
def test_only_the_lines_with_an_open_quote_are_lost(good, kind):
    lines = [f"{number}.mp4{kind}" + ("fine" if sound else '"open') for number, sound in enumerate(good)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.csv")
        path.write_text("\n".join([f"video{kind}caption", *lines]))
        found = outcome(path)
    assert isinstance(found, list)
    assert [isinstance(one, ClipRow) for one in found] == good


@FUZZ
@given(order=st.permutations([f"{number}.{kind}" for number in range(4) for kind in ("mp4", "txt")]))
def test_a_tar_in_any_order_has_all_its_clips(order):
    with tempfile.TemporaryDirectory() as folder:
        path = write_tar(Path(folder, "0.tar"), [(name, name[0].encode()) for name in order])
        found = outcome(path)
    assert [(row.id, row.captions) for row in found if isinstance(row, ClipRow)] == [
        (key, (key,)) for key in dict.fromkeys(name[0] for name in order)
    ]
    assert len(found) == 4


@FUZZ
@given(rows=st.lists(st.one_of(ROWS, CELLS), max_size=6), changes=CHANGES, cut=CUT)
def test_lines_of_json(rows, changes, cut):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if isinstance(found := read_bytes("m.jsonl", text.encode()), list):
        assert len(found) == len(rows) or any("videoID" in row for row in rows if isinstance(row, dict))
    read_bytes("m.jsonl", mutated(text.encode(), changes, cut))
    read_bytes("m.json", mutated(json.dumps(rows).encode(), changes, cut))


@pytest.mark.parametrize("depth", [100, 300, 480, 700, 980, 2000, 100_000])
@pytest.mark.parametrize("column", ["note", "caption", "video", "start", "id", "split"])
def test_lists_within_lists(depth, column):
    row = '{"video": "a.mp4", "caption": "x", ' + f'"{column}": ' + "[" * depth + "]" * depth + "}\n"
    found = read_bytes("m.jsonl", (row + '{"video": "b.mp4", "caption": "x"}\n').encode())
    assert isinstance(found, list)
    assert isinstance(found[-1], ClipRow)


PARQUET_TYPES = st.sampled_from(
    [
        pyarrow.string(),
        pyarrow.binary(),
        pyarrow.float64(),
        pyarrow.int64(),
        pyarrow.timestamp("ns"),
        pyarrow.date32(),
        pyarrow.time64("ns"),
        pyarrow.duration("s"),
        pyarrow.decimal128(10, 2),
        pyarrow.list_(pyarrow.string()),
        pyarrow.struct([("a", pyarrow.string())]),
        pyarrow.map_(pyarrow.string(), pyarrow.int64()),
        pyarrow.dictionary(pyarrow.int8(), pyarrow.string()),
        pyarrow.null(),
    ]
)
_BITS = st.binary(min_size=48, max_size=48)


@st.composite
def parquet_files(draw: st.DrawFn) -> bytes:
    """A table of three rows; numbers, times and texts of any bits."""
    columns: dict[str, Any] = {}
    for name in draw(st.lists(COLUMNS, min_size=1, max_size=5, unique=True)):
        kind = draw(PARQUET_TYPES)
        if name in ("video", "caption"):
            kind = pyarrow.string()
        if pyarrow.types.is_primitive(kind) and kind.bit_width >= 32:
            columns[name] = pyarrow.Array.from_buffers(kind, 3, [None, pyarrow.py_buffer(draw(_BITS))])
        elif kind in (pyarrow.string(), pyarrow.binary()):
            words = [draw(st.binary(max_size=8) if draw(st.booleans()) else TEXTS.map(half_safe)) for _ in range(3)]
            columns[name] = pyarrow.array(words, pyarrow.binary()).view(kind)
        else:
            columns[name] = pyarrow.nulls(3, kind)
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


def half_safe(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


@FUZZ
@given(content=parquet_files(), changes=CHANGES, cut=CUT)
def test_tables_of_parquet(content, changes, cut):
    read_bytes("m.parquet", content)
    read_bytes("m.parquet", mutated(content, changes, cut))


MEMBERS = st.lists(
    st.tuples(
        st.sampled_from(
            ["0.mp4", "0.txt", "0.json", "1.jpg", "1.json", "a/2.mp4", "/3.mp4", "../4.txt", "5", "x" * 200]
        ),
        st.one_of(st.binary(max_size=30), ROWS.map(lambda row: json.dumps(row).encode())),
        st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE]),
        st.dictionaries(
            st.sampled_from(
                ["path", "size", "mtime", "GNU.sparse.map", "GNU.sparse.major", "GNU.sparse.size", "hdrcharset"]
            ),
            st.sampled_from(["1", "0", "-512", "many", "1,2,3", "../x", "BINARY", "9" * 30, "é"]),
            max_size=2,
        ),
    ),
    max_size=5,
)


def tar_of(members: list[tuple[str, bytes, bytes, dict[str, str]]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content, kind, headers in members:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.pax_headers, info.linkname = len(content), kind, dict(headers), "x"
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


@FUZZ
@given(members=MEMBERS, changes=CHANGES, cut=CUT)
def test_tars(members, changes, cut):
    content = tar_of(members)
    read_bytes("0.tar", content)
    data = bytearray(mutated(content, changes, cut))
    read_bytes("0.tar", bytes(data))
    for at in range(0, len(data) - 511, 512):  # with the headers' checksums made right again, so that they are believed
        if data[at + 257 : at + 262] == b"ustar":
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    read_bytes("0.tar", bytes(data))


INFO = {"name": "x", "fileFormat": "tfrecord", "splits": [{"name": "train", "shardLengths": ["2"]}]}
FEATURES = {
    "featuresDict": {
        "features": {
            "video": {"pythonClassName": "x.Tensor", "tensor": {"dtype": "string", "shape": {}}},
            "caption": {"pythonClassName": "x.Sequence", "sequence": {"feature": {"text": {}}}},
        }
    }
}


def holding(value: Any) -> st.SearchStrategy[Any]:
    """A JSON value like this one, some of whose parts are something else."""
    if isinstance(value, dict):
        same: Any = st.fixed_dictionaries({key: holding(part) for key, part in value.items()})
    elif isinstance(value, list):
        same = st.tuples(*map(holding, value)).map(list)
    else:
        same = st.just(value)
    return st.integers(0, 15).flatmap(lambda draw: CELLS if draw == 0 else same)


def read_here(self: Any, path: str) -> Iterator[Any]:
    """`TextReader.read` without a process of its own, which would take a second each time."""
    for line in record_texts.results(path=path, **self._job):
        if (record := record_texts.parse_result(line)) is not None:
            yield record


@FUZZ
@given(
    info=holding(INFO),
    lengths=st.one_of(st.just(["2"]), CELLS, st.lists(CELLS, max_size=3)),
    features=holding(FEATURES),
    records=st.lists(st.binary(max_size=40), max_size=3),
    changes=CHANGES,
)
def test_datasets(info, lengths, features, records, changes):
    with contextlib.suppress(TypeError, IndexError, KeyError):  # where something else stands in its place
        info["splits"][0]["shardLengths"] = lengths
    heads = [struct.pack("<Q", len(record)) for record in records]
    framed = [head + struct.pack("<I", masked_crc32c(head)) for head in heads]
    data = b"".join(head + record + b"\0\0\0\0" for head, record in zip(framed, records, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "x-train.tfrecord-00000-of-00001").write_bytes(mutated(data, changes, 0))
        Path(folder, "dataset_info.json").write_text(json.dumps(info))
        Path(folder, "features.json").write_text(json.dumps(features))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(record_texts.TextReader, "read", read_here)
            outcome(Path(folder))


@FUZZ
@given(text=st.binary(max_size=50), rows=st.one_of(ROWS, CELLS))
def test_texts_beside_videos(text, rows):
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a", "b", "c"):
            Path(folder, f"{name}.mp4").write_bytes(b"x")
        Path(folder, "a.txt").write_bytes(text)
        Path(folder, "b.json").write_text(json.dumps(rows))
        Path(folder, "c.json").write_bytes(text)
        found = outcome(Path(folder))
        assert isinstance(found, str) or len(found) == 3


RECORD = encode(
    Record("a", ("one", "two"), (b"\xff\xd8\xff", b"\xff\xd8"), (0.0, 1.5), 640, 360, {"note": [1, None, {"b": "c"}]})
)


@FUZZ
@given(raw=st.one_of(st.binary(max_size=300), st.builds(mutated, st.just(RECORD), CHANGES, CUT)))
def test_any_bytes_as_a_record(raw):
    try:
        record = parse_record(raw)
    except DataError as error:
        one_line(error)
        with contextlib.suppress(DataError):  # a record may be damaged elsewhere
            parse_record(raw, frames=False)
        return
    with contextlib.suppress(DataError):  # protobuf takes fields that it does not know
        assert isinstance(parse_record(raw, frames=False).id, str)
    assert isinstance(record.id, str)
    assert isinstance(record.extra, dict)
    assert all(isinstance(text, str) for text in record.captions)
    assert all(isinstance(jpeg, bytes) for jpeg in record.jpegs)
