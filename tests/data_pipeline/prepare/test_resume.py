"""Preparation that is killed at any moment and started again: it writes only what is missing, and the same bytes."""

import itertools
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.manifest.rows import ClipRow, Reject
from data_pipeline.prepare import plan, publish, split, write
from data_pipeline.prepare.options import Options
from data_pipeline.shards.shard_format import open_shards, parse_record
from harvest_jax.errors import ConfigError, DataError
from tests.helpers.shard_files import InThisProcess, digests

REPOSITORY = Path(__file__).resolve().parents[3]
SPEC = DecodeSpec(num_frames=4, short_side=48)
SHARDS = 3
OPTIONS = Options(SPEC, SHARDS)
ROWS = [
    *(ClipRow(f"k{number:02d}", f"v{number % 4}.mp4", (f"clip {number}",), "train") for number in range(10)),
    ClipRow("gone", "gone.mp4", ("x",), "train"),
]
EARLY = [Reject("line 7", "", "empty caption")]


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The ids of the clips that were decoded, in order."""
    monkeypatch.setattr(write, "DecoderPool", InThisProcess)
    monkeypatch.setattr(InThisProcess, "asked", [])
    return InThisProcess.asked


def prepare(media: Path, out: Path, rows=ROWS, options=OPTIONS, workers=1, **execution) -> split.ShardReport:
    how = split.Execution(split.local_engine(workers), workers, **execution)
    return split.write_split([*EARLY, *rows], media, out, "train", options, how)


@pytest.fixture(scope="module")
def expected(media, tmp_path_factory) -> dict[str, str]:
    """Of a run that nothing disturbed, with two real workers."""
    out = tmp_path_factory.mktemp("expected")
    prepare(media, out, workers=2)
    return digests(out)


class Killed(BaseException):
    """The process ends here, as far as the code under test can tell."""


def test_killed_at_every_rename_it_ends_with_the_same_bytes(media, tmp_path, monkeypatch, asked, expected):
    replace = Path.replace
    for moment in itertools.count():
        out = tmp_path / str(moment)
        calls = itertools.count()

        def counted(path, target, calls=calls, moment=moment):
            if next(calls) == moment:
                raise Killed
            return replace(path, target)

        monkeypatch.setattr(Path, "replace", counted)
        asked.clear()
        try:
            prepare(media, out)
        except Killed:
            ended = False
        else:
            ended = True
        finally:
            monkeypatch.setattr(Path, "replace", replace)
        if not ended:
            report = prepare(media, out)
            assert len(asked) == len(ROWS) + sum(asked.count(row.id) == 2 for row in ROWS)
            assert len(asked) <= len(ROWS) + -(-len(ROWS) // SHARDS)  # at most the shard that was cut off, again
            assert report.n_written == 10
        assert digests(out) == expected
        if ended:
            break
    assert moment > 3 * SHARDS + 5  # plan, shards, ledgers, moves, checksums, descriptions


def cut_short(out: Path, media: Path, monkeypatch) -> Path:
    """A run that ended with all shards written and nothing published; its work folder."""
    with monkeypatch.context() as patch:
        patch.setattr(publish, "publish", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            prepare(media, out)
    return out / ".train.writing"


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_finished_shard_is_not_written_again(media, tmp_path, monkeypatch, asked, expected):
    cut_short(tmp_path, media, monkeypatch)
    asked.clear()
    report = prepare(media, tmp_path)
    assert asked == []
    assert (report.before, report.n_written) == (len(ROWS), 10)
    assert digests(tmp_path) == expected


@pytest.mark.parametrize("name", ["00001", "00001.ledger"])
@pytest.mark.parametrize("damage", [half, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_shard_is_written_again_and_no_other(media, tmp_path, monkeypatch, asked, expected, name, damage):
    job = cut_short(tmp_path, media, monkeypatch)
    mine = {
        row.id for row in pq.read_table(job / "00001.ledger").to_pylist() for row in [ClipRow(row["id"], "", (), "")]
    }
    asked.clear()
    damage(job / name)
    prepare(media, tmp_path)
    assert set(asked) == mine
    assert len(asked) == len(mine)
    assert digests(tmp_path) == expected
    attempts = {line["id"]: line["attempts"] for line in pq.read_table(tmp_path / "ledger-train.parquet").to_pylist()}
    assert attempts == {row.id: 1 + (row.id in mine) for row in ROWS} | {"line 7": 0}


@pytest.mark.parametrize("damage", [half, Path.unlink, lambda path: path.write_bytes(b"[]")])
@pytest.mark.parametrize("name", ["plan.json", "rows.jsonl", "order.npy"])
def test_a_damaged_plan_is_made_again(media, tmp_path, monkeypatch, asked, expected, name, damage):
    job = cut_short(tmp_path, media, monkeypatch)
    asked.clear()
    damage(job / "plan" / name)
    (job / "00002").unlink()
    prepare(media, tmp_path)
    assert len(asked) <= -(-len(ROWS) // SHARDS)
    assert digests(tmp_path) == expected


def test_other_options_and_other_rows_are_named(media, tmp_path, monkeypatch, asked, expected):
    cut_short(tmp_path, media, monkeypatch)
    for options, difference in [
        (Options(SPEC, 2), "shards 3, not 2"),
        (Options(SPEC, SHARDS, time_limit=5.0), r"time_limit 60\.0, not 5\.0"),
    ]:
        with pytest.raises(
            DataError, match=rf"unfinished run with other options \({difference}\): give the same.*--restart"
        ):
            prepare(media, tmp_path, options=options)
    with pytest.raises(DataError, match="short_side 48, not 32"):
        prepare(media, tmp_path, options=Options(DecodeSpec(4, 32), SHARDS))
    with pytest.raises(DataError, match="other rows in the manifest"):
        prepare(media, tmp_path, ROWS[1:])
    with monkeypatch.context() as patch:
        patch.setattr(plan, "record_versions", lambda: {"av": "1.0.0"})
        with pytest.raises(DataError, match=r"av .*, not 1\.0\.0"):
            prepare(media, tmp_path)
    asked.clear()
    prepare(media, tmp_path)  # all of that has spoilt nothing
    assert asked == []
    assert digests(tmp_path) == expected


def test_restart_with_another_mistake_loses_nothing(media, tmp_path, monkeypatch, asked, expected):
    cut_short(tmp_path, media, monkeypatch)
    execution = split.Execution(split.local_engine(1), restart=True)
    entries = [("train", entry) for entry in (*EARLY, *ROWS)]
    with pytest.raises(ConfigError, match="--shards 12 is impossible"):
        list(split.prepare(entries, media, tmp_path, Options(SPEC, shards=12), execution))
    asked.clear()
    prepare(media, tmp_path)
    assert asked == []
    assert digests(tmp_path) == expected
    cut_short(tmp_path / "again", media, monkeypatch)
    asked.clear()
    list(split.prepare(entries, media, tmp_path / "again", Options(SPEC, shards=SHARDS), execution))
    assert len(asked) == len(ROWS)
    assert digests(tmp_path / "again") == expected


def test_an_overwriting_run_that_was_stopped_is_not_lost(media, tmp_path, monkeypatch, asked, expected):
    prepare(media, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(publish, "publish", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            prepare(media, tmp_path, overwrite=True)
    asked.clear()
    prepare(media, tmp_path)  # nothing to do
    prepare(media, tmp_path, overwrite=True)
    assert asked == []
    assert digests(tmp_path) == expected
    assert not list(tmp_path.glob(".*"))


def test_what_a_run_left_that_was_killed_after_its_end_is_not_overwritten_with(media, tmp_path, monkeypatch, asked):
    def publish_and_die(*arguments, publish=publish.publish):
        publish(*arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(publish, "publish", publish_and_die)
        with pytest.raises(Killed):
            prepare(media, tmp_path)
    asked.clear()
    prepare(media, tmp_path, overwrite=True)  # the videos may be others now
    assert len(asked) == len(ROWS)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("plan_of_another_version", [{"a": 1}, [1], None, {"spec": None}, {"num_shards": "3"}])
def test_a_split_of_another_version_needs_overwrite(media, tmp_path, asked, plan_of_another_version):
    prepare(media, tmp_path)
    path = tmp_path / "ledger-train.parquet"
    table = pq.read_table(path)
    if isinstance(plan_of_another_version, dict) and "a" not in plan_of_another_version:
        plan_of_another_version = json.loads(table.schema.metadata[b"plan"]) | plan_of_another_version
    pq.write_table(table.replace_schema_metadata({b"plan": json.dumps(plan_of_another_version)}), path)
    with pytest.raises(DataError, match="has the split 'train' already: --overwrite replaces it"):
        prepare(media, tmp_path)


def test_a_work_folder_that_leads_elsewhere_is_left_alone(media, tmp_path, asked):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "kept.tmp").write_text("x")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".train.writing").symlink_to(tmp_path / "theirs")
    with pytest.raises(DataError, match=r"\.train\.writing is a link, which could lead to other data"):
        prepare(media, tmp_path / "out")
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["kept.tmp"]


def test_names_are_on_the_disk_before_what_relies_on_them(media, tmp_path, monkeypatch, asked):
    """After a loss of power there is nothing that was moved before and is not there."""
    replace, fsync = Path.replace, os.fsync
    unsafe: set[Path] = set()

    def counted(path, target):
        name = target.name
        if name.endswith(".ledger") or name == "dataset_info.json":
            assert not unsafe & {target.parent / name[:5], *tmp_path.glob("harvest_clips*")}
        unsafe.add(target)
        return replace(path, target)

    def synced(descriptor):
        fsync(descriptor)
        folder = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        unsafe.difference_update([path for path in unsafe if path.parent == folder])

    monkeypatch.setattr(Path, "replace", counted)
    monkeypatch.setattr(os, "fsync", synced)
    prepare(media, tmp_path)
    assert not [path for path in unsafe if path.parent == tmp_path]


def test_a_begun_split_without_a_finished_shard_does_not_block_another_plan(media, tmp_path, asked, expected):
    job = tmp_path / ".train.writing"
    (job / "plan.new").mkdir(parents=True)
    (job / "plan.new" / "rows.jsonl").write_bytes(b"[")
    (job / "00000.abc.tmp").write_bytes(b"half")
    (job / "stop").touch()
    (tmp_path / ".train.lock").touch()  # of one who was killed
    prepare(media, tmp_path)
    assert digests(tmp_path) == expected


def test_the_same_once_more_is_nothing_to_do_and_anything_else_needs_overwrite(media, tmp_path, asked, expected):
    prepare(media, tmp_path)
    asked.clear()
    report = prepare(media, tmp_path)
    assert (report.n_written, report.before, report.shards) == (10, len(ROWS), SHARDS)
    assert [reject.id for reject in report.rejects] == ["line 7", "gone"]
    assert asked == []
    with pytest.raises(DataError, match="has the split 'train' already: --overwrite replaces it"):
        prepare(media, tmp_path, options=Options(SPEC, 2))
    assert digests(tmp_path) == expected
    prepare(media, tmp_path, overwrite=True)  # the videos may be others now
    assert len(asked) == len(ROWS)
    assert digests(tmp_path) == expected
    prepare(media, tmp_path, options=Options(SPEC, 2), overwrite=True)
    assert open_shards(tmp_path, "train").lengths == [5, 5]
    assert not list(tmp_path.glob(".*"))


def test_the_ledger_says_what_became_of_every_clip(media, tmp_path, asked):
    prepare(media, tmp_path)
    lines = pq.read_table(tmp_path / "ledger-train.parquet").to_pylist()
    assert [line["id"] for line in lines[-1:]] == ["line 7"]
    by_id = {line["id"]: line for line in lines}
    assert sorted(by_id) == sorted([row.id for row in ROWS] + ["line 7"])
    assert by_id["gone"]["state"] == "rejected"
    assert by_id["gone"]["reason"] == "not found: No such file or directory"
    expected = ["line 7", "", "rejected", "empty caption", 0, None, 0, None, None, None, None]
    assert list(by_id["line 7"].values()) == expected
    source = open_shards(tmp_path, "train")
    written = [line for line in lines if line["state"] == "written"]
    assert [line["bytes"] for line in written] == [len(source[index]) for index in range(len(source))]
    shards = [number for number, length in enumerate(source.lengths) for _ in range(length)]
    assert [line["shard"] for line in written] == shards
    assert [ROWS[line["row"]].id for line in written] == [line["id"] for line in written]


def test_the_number_of_shards_comes_from_decoded_clips(media, tmp_path, monkeypatch, asked):
    monkeypatch.setattr(plan, "DecoderPool", InThisProcess)
    rows = [ClipRow(f"r{number}", f"v{number % 4}.mp4", ("x",), "train") for number in range(120)]
    options = Options(DecodeSpec(num_frames=10, short_side=800), shard_mb=1.0)  # by its bound 384 MB: it has to look
    execution = split.Execution(split.local_engine(1))
    ((_, report),) = split.prepare((("train", row) for row in rows), media, tmp_path, options, execution)
    assert len(asked) == len(rows) + plan.SAMPLE
    assert report.bytes / 1e6 > 1
    assert report.shards == -(-report.bytes // 1_000_000)


def test_repeated_ids_and_shards_without_clips(media, tmp_path):
    with pytest.raises(DataError, match="two rows share the id 'k03'"):
        split.write_split([*ROWS, ROWS[3]], media, tmp_path, "train", Options(SPEC))
    with pytest.raises(ConfigError, match="--shards 12 is impossible for 11 clips"):
        prepare(media, tmp_path, options=Options(SPEC, 12))
    assert not list(tmp_path.iterdir())


def test_shards_of_another_plan_are_not_taken_for_ours(media, tmp_path, monkeypatch, asked):
    job = cut_short(tmp_path, media, monkeypatch)
    (job / "plan" / "plan.json").unlink()  # so that nothing can be compared but the shards' own word
    asked.clear()
    prepare(media, tmp_path, options=Options(DecodeSpec(2, 48), SHARDS))
    assert len(asked) == len(ROWS)
    source = open_shards(tmp_path, "train")
    assert {len(parse_record(source[index]).jpegs) for index in range(len(source))} == {2}
