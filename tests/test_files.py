"""Files and folders that are there whole or not at all."""

import concurrent.futures
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harvest_jax.files import ASIDE, atomic_file, atomic_folder, locked, write_atomically

ROOT = Path(__file__).resolve().parents[1]


def fail_after(write):
    write()
    raise RuntimeError


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "a.json"
    write_atomically(path, b"old")
    with pytest.raises(RuntimeError), atomic_file(path) as aside:
        fail_after(lambda: aside.write_bytes(b"half"))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "real/a.json")
    write_atomically(tmp_path / "link.json", b"new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real/a.json").read_bytes() == b"new"


def test_a_folder_appears_whole(tmp_path):
    out = tmp_path / "deep/er/out"
    with atomic_folder(out) as aside:
        (aside / "a").write_text("a")
        assert not out.exists()
    assert os.listdir(out) == ["a"]
    assert os.listdir(out.parent) == ["out"]


def test_a_folder_that_fails_leaves_nothing_not_even_its_parents(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "deep/er/out") as aside:
        fail_after(lambda: (aside / "a").write_text("a"))
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_is_removed_and_a_running_one_is_left_alone(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom harvest_jax.files import atomic_folder\n"
        "with atomic_folder(Path(sys.argv[1])) as aside:\n    (aside / 'half').write_text('x')\n"
        "    print('there', flush=True)\n    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out[1]")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        process.stdout.readline()
        with atomic_folder(tmp_path / "out[1]"):
            assert len(list(tmp_path.glob(f".out*{ASIDE}"))) == 2  # the running one's is left alone
        (tmp_path / "out[1]").rmdir()
        process.send_signal(signal.SIGKILL)
    time.sleep(0.1)
    assert len(os.listdir(tmp_path)) == 1
    with atomic_folder(tmp_path / "out[1]") as aside:
        (aside / "a").write_text("a")
    assert os.listdir(tmp_path) == ["out[1]"]


def test_one_at_a_time_holds_a_lock(tmp_path):
    path, count = tmp_path / "lock", [0]

    def add() -> None:
        for _ in range(30):
            with locked(path, wait=True) as mine:
                assert mine
                with locked(path, wait=False) as also_mine:
                    assert not also_mine
                before = count[0]
                time.sleep(0.0002)
                count[0] = before + 1

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: add(), range(4)))
    assert count == [120]
    assert not path.exists()
