"""Preparation on Apache Beam's runners writes what it writes without Beam; workers are processes of their own."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.helpers.shard_files import digests
from tests.helpers.video_files import write_numbered_videos

pytestmark = pytest.mark.beam
REPOSITORY = Path(__file__).resolve().parents[2]
SHARDS, CLIPS = 6, 180


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    """Clips of which one in fifty has no video."""
    folder = write_numbered_videos(tmp_path_factory.mktemp("media"), 8)
    lines = [f"k{n:04d},{'gone' if n % 50 == 7 else f'v{n % 8}'}.mp4,clip {n}\n" for n in range(CLIPS)]
    (folder / "m.csv").write_text("id,video,caption\n" + "".join(lines))
    return folder / "m.csv"


def command(manifest: Path, out: Path, *words: object) -> list[str]:
    options = ["--frames", 4, "--short_side", 48, "--shards", SHARDS]
    base = [sys.executable, "-m", "harvest_jax", "shards", "--manifest", manifest, "--out", out]
    return [str(word) for word in (*base, *options, *words)]


def harvest(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    run = subprocess.run(command(*arguments), cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=240)
    assert run.returncode == code, run.stderr
    return run


@pytest.fixture(scope="module")
def expected(manifest, tmp_path_factory) -> dict[str, str]:
    """What the path without Beam writes."""
    out = tmp_path_factory.mktemp("light") / "out"
    harvest(manifest, out)
    return digests(out)


@contextlib.contextmanager
def processes(*commands: list[str], log: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    with log.open("ab") as file:
        # Beam starts workers as `python`; each in a session of its own, so that what it starts ends with it
        here = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        how = {"cwd": REPOSITORY, "stdout": file, "stderr": file, "env": here, "start_new_session": True}
        started = [subprocess.Popen(words, **how) for words in commands]
        try:
            yield started
        finally:
            for process in started:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextlib.contextmanager
def dask_cluster(folder: Path) -> Iterator[tuple[Path, list[subprocess.Popen[bytes]]]]:
    """A scheduler and two workers with a slot each; the file in which the scheduler says where it is, the workers."""
    where = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    scheduler = [*dask, "scheduler", "--scheduler-file", str(where), "--host", "127.0.0.1", "--port", "0"]
    worker = [*dask, "worker", "--scheduler-file", str(where), "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    with processes([*scheduler, "--no-dashboard"], log=folder / "scheduler.log"):
        wait_for(where.exists)
        commands = [[*worker, "--local-directory", str(folder)] for _ in range(2)]
        with processes(*commands, log=folder / "workers.log") as workers:
            yield where, workers


def wait_for(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def finished(out: Path) -> int:
    return len(list((out / ".train.writing").glob("*.ledger")))


def wait_for_two_shards(out: Path, run: subprocess.Popen, log: Path) -> None:
    """Until two shards are finished, while the command runs on."""
    wait_for(lambda: finished(out) >= 2 or run.poll() is not None)
    assert run.poll() is None, log.read_text()


def test_direct(manifest, tmp_path, expected):
    run = harvest(manifest, tmp_path / "out", "--runner", "direct")
    assert re.search(r"train: 176 clips in 6 shards of .*\ntrain: 4 rejected, .*\(4 x not found\)", run.stdout)
    assert digests(tmp_path / "out") == expected


def test_dask_with_a_worker_killed_in_the_middle(manifest, tmp_path, expected):
    out = tmp_path / "out"
    with dask_cluster(tmp_path) as (where, workers):
        words = command(manifest, out, "--runner", "dask", "--", f"--dask_scheduler_file={where}")
        with processes(words, log=tmp_path / "command.log") as (run,):
            wait_for_two_shards(out, run, tmp_path / "command.log")
            workers[0].kill()
            workers[0].wait()
            assert finished(out) < SHARDS
            assert run.wait(240) == 0, (tmp_path / "command.log").read_text()
            assert workers[1].poll() is None
    assert digests(out) == expected
    attempts = pq.read_table(out / "ledger-train.parquet")["attempts"].to_pylist()
    assert max(attempts) >= 2  # the shard that the killed worker had begun


def test_begun_on_dask_and_finished_without_beam(manifest, tmp_path, expected):
    out = tmp_path / "out"
    with dask_cluster(tmp_path) as (where, _):
        words = command(manifest, out, "--runner", "dask", "--", f"--dask_scheduler_file={where}")
        with processes(words, log=tmp_path / "command.log") as (run,):
            wait_for_two_shards(out, run, tmp_path / "command.log")
    kept = finished(out)
    assert 2 <= kept < SHARDS
    run = harvest(manifest, out)
    assert int(re.search(r"(\d+) were there before", run.stdout)[1]) >= kept * CLIPS // SHARDS
    assert digests(out) == expected


def test_too_many_rejects_begin_no_further_shard(manifest, tmp_path):
    broken = tmp_path / "broken.csv"
    lines = [f"k{n:04d},{'gone' if n % 2 else f'v{n % 8}'}.mp4,clip {n}\n" for n in range(800)]
    broken.write_text("id,video,caption\n" + "".join(lines))
    words = ["--root", manifest.parent, "--runner", "direct", "--shards", 16]
    run = harvest(broken, tmp_path / "out", *words, code=3)
    found = re.search(r"harvest shards: (\d+) of the first (\d+) clips of train failed, which is more", run.stderr)
    assert 200 <= int(found[2]) < 800
    assert re.search(rf"^ +{found[1]}  not found$", run.stdout, re.MULTILINE)
    assert 200 // 50 <= finished(tmp_path / "out") < 16


def test_a_runner_that_cannot_be_reached_is_one_line(manifest, tmp_path):
    words = ["--runner", "dask", "--", "--dask_client_address=tcp://127.0.0.1:9", "--dask_connection_timeout=2"]
    run = harvest(manifest, tmp_path / "out", *words, code=1)
    last = run.stderr.splitlines()[-1]
    assert last.startswith(
        "harvest shards: the job stopped; finished shards are kept, and the same command writes the others"
    )
    assert "127.0.0.1:9" in last
    assert "Traceback" not in run.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("runner", ["flink", "spark"])
def test_flink_and_spark_as_far_as_their_job_servers(manifest, tmp_path, expected, runner):
    """All that happens in Python: the job goes to a job server (here Beam's own, in Python), workers are elsewhere."""
    server, pool = free_port(), free_port()
    python = [sys.executable, "-m"]
    with processes(
        [*python, "apache_beam.runners.portability.local_job_service_main", "--port", str(server)],
        [*python, "apache_beam.runners.worker.worker_pool_main", "--service_port", str(pool)],
        log=tmp_path / "servers.log",
    ):
        for port in (server, pool):
            wait_for(lambda port=port: is_open(port))
        where = [f"--job_endpoint=localhost:{server}", "--environment_type=EXTERNAL"]
        harvest(manifest, tmp_path / "out", "--runner", runner, "--", *where, f"--environment_config=localhost:{pool}")
    assert digests(tmp_path / "out") == expected


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


BUILDER = """
import sys
import tensorflow_datasets as tfds
from data_pipeline.tfds_builder import HarvestClips
from data_pipeline.prepare.options import Options
from data_pipeline.decode.spec import DecodeSpec
options = Options(DecodeSpec(num_frames=4, short_side=48), shards=6)
builder = HarvestClips(manifest=[sys.argv[1]], options=options, data_dir=sys.argv[2])
builder.download_and_prepare(download_config=tfds.download.DownloadConfig(beam_runner="DirectRunner"))
print(builder.data_dir)
"""


def test_the_builder_on_a_runner(manifest, tmp_path, expected):
    words = [sys.executable, "-W", "ignore", "-c", BUILDER, str(manifest), str(tmp_path)]
    run = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert digests(Path(run.stdout.strip())) == expected
