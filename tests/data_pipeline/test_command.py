"""The command `harvest shards`: its output, its exit codes and its errors."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipeline.decode import pool
from data_pipeline.prepare import ledger, plan, split_progress, write
from data_pipeline.prepare.ledger import FinishedShard
from data_pipeline.shards.shard_format import open_shards
from harvest_jax import cli, terminal
from tests.helpers.disks import small_disk
from tests.helpers.shard_files import InThisProcess, digests
from tests.helpers.video_files import write_numbered_videos

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    return write_numbered_videos(tmp_path_factory.mktemp("media"), 8, "v{:02d}.mp4")


def harvest(*words: object) -> subprocess.CompletedProcess[str]:
    warnings = ["-W", "error", "-W", "ignore:label() is deprecated:DeprecationWarning"]  # TFDS's, with protobuf 6
    command = [sys.executable, *warnings, "-m", "harvest_jax", "shards"]
    return subprocess.run([*command, *map(str, words)], cwd=REPOSITORY, capture_output=True, text=True, check=False)


@pytest.fixture
def no_processes(monkeypatch) -> None:
    """Clips are decoded here, where the processes that usually do it are not what is tested."""
    monkeypatch.setattr(write, "DecoderPool", InThisProcess)


def write_manifest(path: Path, count: int, broken: int = 0) -> Path:
    """Rows of `count` clips; `broken` in ten have no video."""
    lines = [f"k{n:04d},{'gone' if n % 10 < broken else f'v{n % 8:02d}'}.mp4,clip {n}\n" for n in range(count)]
    path.write_text("id,video,caption\n" + "".join(lines))
    return path


def words(manifest: Path, media: Path, out: Path, *more: object) -> list[str]:
    small = ["--frames", 4, "--short_side", 32, "--workers", 1]
    return [str(word) for word in ("--manifest", manifest, "--root", media, "--out", out, *small, *more)]


def test_the_command(media, tmp_path, capsys, monkeypatch):
    lines = [f"v{number:02d}.mp4,clip {number},{'train' if number < 4 else 'test'}" for number in range(6)]
    manifest = tmp_path / "m.csv"
    manifest.write_text("video,caption,split\n" + "\n".join(lines) + "\nnone.mp4,x,train\nv07.mp4,,train\n")
    run = harvest(*words(manifest, media, tmp_path / "a", "--max_rejects", 0.5))
    assert run.returncode == 0
    assert all(re.fullmatch(r"\w+: \d+/\d+ clips, .*", line) for line in run.stderr.splitlines())  # if it is slow
    assert re.match(
        r"test: 2 clips in 1 shard of .*\ntrain: 4 clips in 1 shard of .* MB, .* s \(.* clips/s\)\n", run.stdout
    )
    assert "train: 2 rejected, listed in" in run.stdout
    assert (tmp_path / "a" / "rejects-train.tsv").read_text().splitlines() == [
        "id\tvideo\treason",
        "line 9\tv07.mp4\tempty caption",
        "none\tnone.mp4\tnot found: No such file or directory",
    ]
    monkeypatch.setattr(write, "DecoderPool", InThisProcess)
    assert cli.main(["shards", *words(manifest, media, tmp_path / "b", "--split", "train")]) == 3
    message = "harvest shards: 2 of 6 rows failed, more than --max_rejects 0.05; the shards of the others are written"
    assert capsys.readouterr().err.splitlines()[-1].startswith(message)
    assert len(open_shards(tmp_path / "b", "train")) == 4


def test_several_manifests_are_one(media, tmp_path, no_processes):
    for name, clip in (("a", 1), ("b", 2)):
        (tmp_path / f"{name}.csv").write_text(f"video,caption\nv0{clip}.mp4,x\n")
    command = ["shards", *words(tmp_path / "a.csv", media, tmp_path / "out")]
    command.insert(command.index("--root"), str(tmp_path / "b.csv"))
    assert cli.main(command) == 0
    assert len(open_shards(tmp_path / "out", "train")) == 2


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--workers", 0), 2, "--workers 0: at least 1"),
        (("--frames", 0), 2, "num_frames=0 is outside 1..1024"),
        (("--shards", 0), 2, "--shards 0: at least 1"),
        (("--shard_mb", 0), 2, "--shard_mb 0 is outside 1..100000"),
        (("--max_rejects", 5), 2, "--max_rejects 5 is outside 0..1"),
        (("--time_limit", 0), 2, "--time_limit 0: more than 0 seconds"),
        (("--split", "a-b"), 3, "'a-b' cannot name a split"),
        (("--manifest", "nothing.csv"), 3, "no manifest nothing.csv"),
        (("--", "--job_endpoint=x"), 2, "'--job_endpoint=x' is an option for Apache Beam: it needs --runner"),
    ],
)
def test_mistakes_on_the_command_line(media, tmp_path, capsys, more, code, message):
    (tmp_path / "m.csv").write_text("video,caption\nv00.mp4,x\n")
    assert cli.main(["shards", *words(tmp_path / "m.csv", media, tmp_path / "out", *more)]) == code
    error = capsys.readouterr().err
    assert error.startswith(f"harvest shards: {message}")
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_runner_without_beam_is_one_line(media, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    manifest = write_manifest(tmp_path / "m.csv", 2)
    assert cli.main(["shards", *words(manifest, media, tmp_path / "out", "--runner", "flink")]) == 2
    expected = "harvest shards: --runner flink needs Apache Beam: pip install 'harvest_jax[beam]'\n"
    assert capsys.readouterr().err == expected


def test_dry_run_writes_nothing_and_says_what_all_would_take(media, tmp_path, capsys, no_processes):
    manifest = write_manifest(tmp_path / "m.csv", 100, broken=1)
    with manifest.open("a") as file:
        file.write("e1,v00.mp4,\n")
    before = sorted(tmp_path.rglob("*"))
    dry_run = ["--shards", 3, "--max_rejects", 0.3, "--dry_run"]
    assert cli.main(["shards", *words(manifest, media, tmp_path / "out", *dry_run)]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    first, second, *table = capsys.readouterr().out.splitlines()
    pattern = r"train: 100 clips, about (\S+) GB in 3 shards, (\S+) core-hours: (\S+) hours with 1 worker \(.* 65 .*\)"
    found = re.fullmatch(pattern, first)
    assert found
    assert 0 < float(found[2]) < 0.1
    assert float(found[2]) == float(found[3])
    rejects = int(re.fullmatch(r"train: 1 rows of the manifest .* about (\d+) videos:", second)[1])
    assert 2 <= rejects <= 20
    assert sorted(line.split(maxsplit=1)[1] for line in table) == ["empty caption", "not found"]
    assert cli.main(["shards", *words(manifest, media, tmp_path / "out", "--shards", 3, "--max_rejects", 0.2)]) == 0
    written = ledger.summarise(tmp_path / "out" / "ledger-train.parquet").bytes  # files so small are mostly padding
    assert float(found[1]) * 1e9 == pytest.approx(written, rel=0.2)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (10, "not one clip of train could be used: all 20 clips that were tried were rejected"),
        (3, "about 6 of 20 rows would fail, more than --max_rejects 0.05"),
    ],
)
def test_a_dry_run_fails_where_the_run_would_fail(media, tmp_path, capsys, broken, message):
    manifest = write_manifest(tmp_path / "m.csv", 20, broken)
    assert cli.main(["shards", *words(manifest, media, tmp_path / "out", "--dry_run")]) == 3
    told = capsys.readouterr()
    assert told.out.splitlines()[-1].split() == [str(2 * broken), "not", "found"]
    assert told.err == f"harvest shards: {message}\n"


def test_too_many_rejects_stop_early_and_a_larger_share_goes_on(media, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(split_progress, "MIN_CLIPS", 40)
    manifest = write_manifest(tmp_path / "m.csv", 60, broken=3)
    command = ["shards", *words(manifest, media, tmp_path / "out", "--shards", 6)]
    with monkeypatch.context() as patch:
        patch.setattr(write, "DecoderPool", InThisProcess)
        assert cli.main(command) == 3
    told = capsys.readouterr()
    found = re.match(r"harvest shards: (\d+) of the first (\d+) clips of train failed, which is more", told.err)
    failed, done = int(found[1]), int(found[2])
    assert done == split_progress.MIN_CLIPS
    assert told.out == f"{failed:>10}  not found\n"
    assert "the same command with a larger --max_rejects continues" in told.err
    kept = list((tmp_path / "out" / ".train.writing").glob("*.ledger"))
    assert len(kept) == split_progress.MIN_CLIPS // 10 - 1  # the fourth, of 10 clips each, was not closed
    assert cli.main([*command, "--workers", "2"]) == 3  # the same again, at the same clip
    assert capsys.readouterr().err == told.err
    monkeypatch.setattr(write, "DecoderPool", InThisProcess)
    assert cli.main([*command, "--max_rejects", "0.4"]) == 0
    assert f", {10 * len(kept)} were there before)" in capsys.readouterr().out
    assert len(open_shards(tmp_path / "out", "train")) == 42


def test_a_manifest_that_is_itself_too_bad_stops_the_run(media, tmp_path, capsys, monkeypatch, no_processes):
    monkeypatch.setattr(split_progress, "MIN_CLIPS", 10)
    manifest = write_manifest(tmp_path / "m.csv", 30)
    with manifest.open("a") as file:
        file.writelines(f"e{number},v00.mp4,\n" for number in range(4))
    assert cli.main(["shards", *words(manifest, media, tmp_path / "out")]) == 3
    told = capsys.readouterr()
    assert told.err.startswith(
        "harvest shards: 0 of the first 10 clips of train failed and 4 rows of the manifest before, which is more than "
        "--max_rejects 0.05 allows"
    )
    assert told.out == f"{4:>10}  empty caption\n"


def count(rejected: int, done: int, total: int, early: int, share: float) -> bool:
    """Whether a run stops there."""
    shard = FinishedShard(0, "", done, done - rejected, 0, 0, "", {"none": rejected})
    try:
        split_progress.SplitProgress("train", total, {"empty caption": early}, [shard], share).check()
    except split_progress.TooManyRejects:
        return True
    return False


def test_when_a_run_stops():
    assert not count(199, 199, 10_000, 0, 0.05)  # too few to say
    assert not count(15, 200, 10_000, 0, 0.05)  # 7.5 %, by chance
    assert count(25, 200, 10_000, 0, 0.05)  # no chance any more
    assert not count(20, 400, 400, 0, 0.05)
    assert count(21, 400, 400, 0, 0.05)
    assert not count(200, 200, 200, 0, 1.0)
    assert count(1, 200, 200, 0, 0.0)
    assert count(2, 300, 400, 20, 0.05)  # the manifest had 20 of the 21 that may fail
    assert not count(1, 300, 400, 20, 0.05)
    assert count(0, 200, 400, 100, 0.05)  # whatever comes, the manifest had too many


def test_progress_counts_this_run_alone(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    earlier = FinishedShard(0, "", 500, 490, 10**6, 0, "", {"none": 10})
    with terminal.progress("train", "clips") as report:
        counting = split_progress.SplitProgress("train", 1000, {}, [earlier], None, report)
        counting.show()
        now[0] += 9
        for _ in range(50):
            counting.add_clip(None, 1000)
        now[0] += 1
        for _ in range(50):
            counting.add_clip(None, 1000)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "train: 551/1000 clips, 88 s left, 10 rejected, 1.1 MB, 5.1 clips/s"


def test_every_long_stage_reports_progress(media, tmp_path, capsys, monkeypatch, no_processes):
    monkeypatch.setattr(terminal, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(plan, "DecoderPool", InThisProcess)
    manifest = write_manifest(tmp_path / "m.csv", 40)
    with manifest.open("a") as file:
        file.writelines(f"e{number},v00.mp4,\n" for number in range(1000))
    command = ["shards", *words(manifest, media, tmp_path / "out", "--max_rejects", 1, "--shard_mb", 1)]
    command[command.index("--short_side") + 1] = "1024"
    for more, stage in (
        ([], "train: sample for the size of shards: 32/32 clips"),
        (["--dry_run"], "train: sample: 40/40"),
    ):
        assert cli.main([*command, *more]) == 0
        told = capsys.readouterr().err
        assert told.startswith("reading the manifest: 1000 rows\n")
        assert stage in told
        assert more or "train: 0/40 clips, 0 rejected, 0.0 MB, 0.0 clips/s\n" in told
        assert more or "train: 40/40 clips, 0 rejected, " in told


def test_a_full_disk_is_one_line_and_space_is_all_it_takes_to_go_on(media, tmp_path, capsys, no_processes):
    manifest = write_manifest(tmp_path / "m.csv", 60)
    assert cli.main(["shards", *words(manifest, media, tmp_path / "whole", "--shards", 6)]) == 0
    size = sum(path.stat().st_size for path in (tmp_path / "whole").glob("harvest_clips*"))
    with small_disk(tmp_path / "disk", f"size={size + 200_000}") as disk:
        (disk / "ballast").write_bytes(bytes(size // 2 + 200_000))
        capsys.readouterr()
        assert cli.main(["shards", *words(manifest, media, disk / "out", "--shards", 6)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert re.fullmatch(r"harvest shards: .*No space left on device.*", line)
        kept = list((disk / "out" / ".train.writing").glob("*.ledger"))
        assert 0 < len(kept) < 6
        assert not list((disk / "out" / ".train.writing").glob("*.tmp"))
        (disk / "ballast").unlink()
        assert cli.main(["shards", *words(manifest, media, disk / "out", "--shards", 6)]) == 0
        assert f"{10 * len(kept)} were there before" in capsys.readouterr().out
        assert digests(disk / "out") == digests(tmp_path / "whole")


def test_files_that_may_not_grow(media, tmp_path, capsys, no_processes):
    manifest = write_manifest(tmp_path / "m.csv", 60)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        assert cli.main(["shards", *words(manifest, media, tmp_path / "out")]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"harvest shards: .*cannot be written: .*File too large.*", line)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_may_not_be_written(media, tmp_path, capsys):
    manifest = write_manifest(tmp_path / "m.csv", 2)
    with small_disk(tmp_path / "disk", "ro") as disk:
        assert cli.main(["shards", *words(manifest, media, disk / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"harvest shards: .*Read-only file system: '.*/out'", line)


def test_workers_that_end_at_once_stop_the_run_and_keep_what_is_finished(media, tmp_path, capsys, monkeypatch):
    manifest = write_manifest(tmp_path / "m.csv", 20)
    command = ["shards", *words(manifest, media, tmp_path / "out", "--shards", 2)]
    with monkeypatch.context() as patch:
        patch.setattr(pool, "WORKER_COMMAND", (sys.executable, "-c", "import nothing_of_that_name"))
        assert cli.main(command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("harvest shards: a decoder process ends when it starts (status 1); to see the error, run")
    assert cli.main(command) == 0
