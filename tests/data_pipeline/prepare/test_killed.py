"""`harvest shards` in processes that are killed and stopped by signals, and continued by the same command."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_pipeline.prepare import write
from data_pipeline.shards.shard_format import open_shards
from harvest_jax import cli
from harvest_jax.errors import DataError
from tests.helpers.shard_files import InThisProcess, digests

REPOSITORY = Path(__file__).resolve().parents[3]


def command(media: Path, out: Path, *words: object) -> list[str]:
    lines = "".join(f"k{number:03d},v{number % 4}.mp4,clip {number}\n" for number in range(120))
    (media / "many.csv").write_text("id,video,caption\n" + lines + "gone,gone.mp4,x\n")
    options = ["--frames", 4, "--short_side", 48, "--shards", 12, *words]
    return [str(word) for word in ("shards", "--manifest", media / "many.csv", "--out", out, *options)]


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def test_a_command_and_its_workers_killed_in_the_middle(media, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(write, "DecoderPool", InThisProcess)  # of the commands that are not killed
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert cli.main(command(media, whole)) == 0
    job = out / ".train.writing"
    harvest = [sys.executable, "-m", "harvest_jax", *command(media, out, "--workers", 1)]
    run = subprocess.Popen(harvest, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while len(list(job.glob("*.ledger"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(run.pid, signal.SIGSTOP)  # so that it is still there
        assert cli.main(command(media, out)) == 3
        assert "another run is writing the split 'train'" in capsys.readouterr().err
        os.kill(run.pid, signal.SIGCONT)
        os.kill(children(run.pid)[0], signal.SIGKILL)  # a worker; its clip is given to another
        time.sleep(0.05)
    finally:
        run.kill()
        run.wait()
    kept = list(job.glob("*.ledger"))
    assert 3 <= len(kept) < 12
    with pytest.raises(DataError, match="holds no shards: a run was stopped there"):
        open_shards(out, "train")
    assert cli.main(command(media, out)) == 0
    before = re.search(r"120 clips in 12 shards of .* clips/s, (\d+) were there before\)", capsys.readouterr().out)[1]
    assert 10 * len(kept) <= int(before) <= 11 * len(kept)
    assert digests(out) == digests(whole)
    assert not list(out.glob(".*"))


def test_sigterm_ends_a_run_with_its_workers_and_the_command_continues_it(media, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    harvest = [sys.executable, "-m", "harvest_jax"]
    subprocess.run([*harvest, *command(media, whole, "--workers", 2)], cwd=REPOSITORY, check=True, capture_output=True)
    run = subprocess.Popen([*harvest, *command(media, out, "--workers", 2)], cwd=REPOSITORY, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while len(list((out / ".train.writing").glob("*.ledger"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        workers = children(run.pid)
        run.terminate()
        _, told = run.communicate(timeout=30)
    finally:
        run.kill()
        run.wait()
    assert len(workers) == 2
    assert run.returncode == 128 + signal.SIGTERM
    assert b"Traceback" not in told
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    kept = list((out / ".train.writing").glob("*.ledger"))
    assert 3 <= len(kept) < 12
    assert not list((out / ".train.writing").glob("*.tmp"))
    again = subprocess.run([*harvest, *command(media, out)], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    assert f", {10 * len(kept)} were there before)" in again.stdout or f", {10 * len(kept) + 1} were" in again.stdout
    assert digests(out) == digests(whole)
    assert not list(out.glob(".*"))
