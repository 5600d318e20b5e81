"""A finished split is changed: only what has changed is decoded, and the result is that of a fresh run."""

import dataclasses
import itertools
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_pipeline.decode import clip, content, worker
from data_pipeline.decode.packed_clip import read_array_record
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.manifest.rows import ClipRow
from data_pipeline.media_paths import FilePart, noting, open_regular
from data_pipeline.prepare import split, write
from data_pipeline.prepare.earlier import EarlierSplit
from data_pipeline.prepare.options import Options
from data_pipeline.shards.shard_format import open_shards, parse_record
from tests.helpers.shard_files import InThisProcess, digests
from tests.helpers.video_files import numbered_frames, write_video

OPTIONS = Options(DecodeSpec(num_frames=4, short_side=48), 3)
ROWS = [ClipRow(f"k{number:02d}", f"v{number % 4}.mp4", (f"clip {number}",), "train") for number in range(10)]


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The names of the videos that were decoded, in order."""
    names: list[str] = []
    real = clip.decode_clip

    def counted(path, *others):
        names.append(Path(path).name)
        return real(path, *others)

    monkeypatch.setattr(clip, "decode_clip", counted)
    monkeypatch.setattr(write, "DecoderPool", InThisProcess)
    return names


@pytest.fixture
def videos(media, tmp_path) -> Path:
    """A copy of the videos, to be changed."""
    shutil.copytree(media, tmp_path / "videos")
    return tmp_path / "videos"


def prepare(media: Path, out: Path, rows=ROWS, options=OPTIONS, **execution) -> split.ShardReport:
    return split.write_split(rows, media, out, "train", options, split.Execution(split.local_engine(1), 1, **execution))


def fresh(media: Path, out: Path, rows=ROWS, options=OPTIONS) -> dict[str, str]:
    prepare(media, out, rows, options)
    return digests(out)


def changed(rows, number: int, **fields):
    return [*rows[:number], dataclasses.replace(rows[number], **fields), *rows[number + 1 :]]


ADDED = [ClipRow(f"new{number}", f"v{number}.mp4", ("new",), "train") for number in range(3)]
CHANGES = {  # the rows, and how many clips have to be decoded
    "nothing": (ROWS, 0),
    "rows were added": ([*ROWS[:4], *ADDED, *ROWS[4:]], 3),
    "rows were removed": (ROWS[3:], 0),
    "a caption": (changed(ROWS, 2, captions=("another",)), 0),
    "a column": (changed(ROWS, 2, extra={"label": "x"}), 0),
    "the order": (ROWS[::-1], 0),
    "a span": (changed(ROWS, 2, start=0.2), 1),
    "an id": (changed(ROWS, 2, id="other"), 1),
    "another video": (changed(ROWS, 2, video="v3.mp4"), 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_decoded_and_nothing_else(videos, tmp_path, decoded, change):
    rows, expected = CHANGES[change]
    prepare(videos, tmp_path / "out")
    assert len(decoded) == len(ROWS)
    decoded.clear()
    report = prepare(videos, tmp_path / "out", rows, overwrite=True)
    assert len(decoded) == expected
    assert report.taken_over == len(rows) - expected
    assert digests(tmp_path / "out") == fresh(videos, tmp_path / "fresh", rows)
    assert open_shards(tmp_path / "out", "train").digest == open_shards(tmp_path / "fresh", "train").digest


def test_a_video_is_replaced_by_another_of_the_same_size_and_time(videos, tmp_path, decoded):
    prepare(videos, tmp_path / "out")
    path = videos / "v1.mp4"
    status, content = path.stat(), bytearray(path.read_bytes())
    other = write_video(tmp_path / "other.mp4", numbered_frames(30)[20:]).read_bytes()[: len(content)]
    path.write_bytes(other + content[len(other) :])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    decoded.clear()
    prepare(videos, tmp_path / "out", overwrite=True)
    assert set(decoded) == {"v1.mp4"}
    assert digests(tmp_path / "out") == fresh(videos, tmp_path / "fresh")


def test_other_settings_and_a_restart_decode_everything(videos, tmp_path, decoded):
    prepare(videos, tmp_path / "out")
    for options, execution in ((Options(DecodeSpec(3, 48), 3), {}), (Options(DecodeSpec(3, 48), 3), {"restart": True})):
        decoded.clear()
        report = prepare(videos, tmp_path / "out", options=options, overwrite=True, **execution)
        assert (len(decoded), report.taken_over) == (len(ROWS), 0)
    decoded.clear()
    prepare(videos, tmp_path / "out", options=Options(DecodeSpec(3, 48), 2), overwrite=True)
    assert decoded == []  # another number of files needs no decoding


class Killed(BaseException):
    """The process ends here, as far as the code under test can tell."""


def test_killed_at_every_rename_it_goes_on_and_decodes_only_what_is_new(videos, tmp_path, decoded, monkeypatch):
    """Also while the files of the old split are removed and those of the new one take their places."""
    prepare(videos, tmp_path / "old")
    rows = [*changed(ROWS, 2, captions=("another",)), *ADDED]
    expected = fresh(videos, tmp_path / "fresh", rows)
    replace = Path.replace
    for moment in itertools.count():
        out = tmp_path / str(moment)
        shutil.copytree(tmp_path / "old", out)
        calls = itertools.count()

        def counted(path, target, calls=calls, moment=moment):
            if next(calls) == moment:
                raise Killed
            return replace(path, target)

        decoded.clear()
        monkeypatch.setattr(Path, "replace", counted)
        try:
            prepare(videos, out, rows, overwrite=True)
        except Killed:
            ended = False
        else:
            ended = True
        finally:
            monkeypatch.setattr(Path, "replace", replace)
        if not ended:
            prepare(videos, out, rows, overwrite=True)
        assert len(decoded) <= 2 * len(ADDED)
        assert digests(out) == expected
        if ended:
            break
    assert moment > 12


def test_a_damaged_record_is_decoded_again(videos, tmp_path, decoded):
    prepare(videos, tmp_path / "out", options=Options(OPTIONS.spec, 1))
    (shard,) = (tmp_path / "out").glob("harvest_clips-train*")
    raw = bytearray(shard.read_bytes())
    record = open_shards(tmp_path / "out", "train")[4]
    raw[raw.index(record[-100:])] ^= 1
    shard.write_bytes(raw)
    decoded.clear()
    prepare(videos, tmp_path / "out", options=Options(OPTIONS.spec, 1), overwrite=True)
    assert len(decoded) == 1
    assert digests(tmp_path / "out") == fresh(videos, tmp_path / "fresh", options=Options(OPTIONS.spec, 1))


def test_a_split_of_an_earlier_version_is_decoded_again(videos, tmp_path, decoded):
    prepare(videos, tmp_path / "out")
    path = tmp_path / "out" / "ledger-train.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["reads", "content"]), path)
    decoded.clear()
    prepare(videos, tmp_path / "out", [*ROWS, *ADDED], overwrite=True)
    assert len(decoded) == len(ROWS) + len(ADDED)


def test_clips_are_found_in_ledgers_of_many_groups(videos, tmp_path, decoded):
    """Parquet may divide a shard's rows into several groups."""
    prepare(videos, tmp_path / "out", [*ROWS, ClipRow("gone", "gone.mp4", ("x",), "train")])
    source = open_shards(tmp_path / "out", "train")
    path = tmp_path / "out" / "ledger-train.parquet"
    pq.write_table(pq.read_table(path), path, row_group_size=2)
    earlier = EarlierSplit(tmp_path / "out", "train")
    for row in ROWS:
        found = earlier.find(row.id)
        assert parse_record(read_array_record(found["shard"], found["record"])).id == row.id
    assert earlier.find("gone") is None
    assert earlier.find("never there") is None
    assert len(source) == len(ROWS)


def test_ranges_are_joined_and_few():
    assert content.joined([]) == []
    assert content.joined([(100, 50), (0, 100), (120, 10)]) == [0, 150]
    assert content.joined([(0, 10), (50_000, 10), (500_000, 5)]) == [0, 50_010, 500_000, 5]
    far = [(10**6 * number, 10) for number in range(100)] + [(10**9, 7)]
    flat = content.joined(far)
    assert len(flat) <= 2 * 32
    spans = list(zip(flat[::2], flat[1::2], strict=True))
    assert all(
        any(begin <= offset and offset + size <= begin + length for begin, length in spans) for offset, size in far
    )


def test_only_what_decoding_reads_is_compared(tmp_path):
    """A long file of which a clip needs a little: what lies beyond may change, what it needs may not."""
    path = tmp_path / "long"
    path.write_bytes(bytes(10**6))
    opened = []
    with noting(opened), open_regular(path, 1 << 30) as file:
        file.seek(200_000)
        file.read(1000)
    (begin, size) = content.joined(opened[0].reads)
    assert begin <= 200_000 < begin + size < 400_000
    key = (str(path), FilePart(), None, None, [begin, size])
    before = content.digest_of(*key)
    for place, same in ((900_000, True), (200_500, False)):
        raw = bytearray(10**6)
        raw[place] = 1
        path.write_bytes(raw)
        assert (content.digest_of(*key) == before) is same
    path.write_bytes(bytes(10**6 + 1))
    assert content.digest_of(*key) != before


def test_a_tar_may_be_packed_anew(tmp_path):
    """The part may lie elsewhere in the file; its span and its bytes count."""
    path, clip_bytes = tmp_path / "a.tar", os.urandom(5000)
    digests_of = []
    for before, span in ((b"x" * 512, (None, None)), (b"y" * 9000, (None, None)), (b"y" * 9000, (1.0, None))):
        path.write_bytes(before + clip_bytes + b"z" * 100)
        part = FilePart(offset=len(before), size=len(clip_bytes))
        digests_of.append(content.digest_of(str(path), part, *span, [0, 5000]))
    assert digests_of[0] == digests_of[1] != digests_of[2]


def test_records_of_other_files_are_decoded_each_time(videos, tmp_path, decoded):
    """What a library reads by itself is not known."""
    prepare(videos, tmp_path / "out")
    shard = next((tmp_path / "out").glob("harvest_clips-train*"))
    task = {"path": str(shard), "start": None, "end": None, "spec": dataclasses.asdict(OPTIONS.spec)}
    task |= {"part": {"record": 0, "field": "jpegs"}, "record": {"id": "a", "captions": [], "extra": {}}}
    header, _ = worker.run_task(task)
    assert header == {"frames": 4, "damaged": 0}
