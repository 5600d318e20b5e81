"""What a killed `harvest weights` leaves, and where its results may be written: real processes, real files."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harvest_jax.cli import main
from harvest_jax.demo.image_clip import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "import": ("import", str(SHIPPED), "--out"),
    "mix": ("mix", str(SHIPPED), str(SHIPPED), "--alpha", "0.5", "--out"),
    "hf": ("export", str(SHIPPED), "--format", "hf", "--out"),
    "scenic": ("export", str(SHIPPED), "--format", "scenic", "--out"),
    "safetensors": ("export", str(SHIPPED), "--format", "safetensors", "--out"),
    "stablehlo": ("export", str(SHIPPED), "--format", "stablehlo", "--out"),
}
ENDINGS = {"scenic": ".msgpack", "safetensors": ".safetensors"}


def output(tmp_path, command):
    return tmp_path / "place" / f"out{ENDINGS.get(command, '')}"


@pytest.mark.parametrize(
    ("command", "event", "number"),
    [
        ("import", "write", 1),
        ("import", "write", 2),
        ("import", "rename", 1),
        ("mix", "rename", 1),
        ("hf", "write", 3),
        ("scenic", "rename", 1),
        ("safetensors", "write", 1),
        ("stablehlo", "write", 2),
    ],
)
def test_a_killed_command_can_be_run_again_and_leaves_nothing(command, event, number, tmp_path):
    out = output(tmp_path, command)
    out.parent.mkdir()
    words = ["weights", *COMMANDS[command], str(out)]
    killed = [sys.executable, "-m", "tests.helpers.killed_at", event, str(number), str(out.parent), *words]
    done = subprocess.run(killed, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not out.exists()
    assert os.listdir(out.parent) != []  # it was killed in the middle
    assert main(words) == 0
    assert os.listdir(out.parent) == [out.name]


@pytest.mark.parametrize("kind", ["folder", "file", "dangling"])
@pytest.mark.parametrize("command", ["import", "hf", "safetensors"])
def test_a_link_as_the_output(command, kind, tmp_path, capsys):
    """A link to nothing or to an empty folder: its target is written. Otherwise one line, and nothing is changed."""
    out = output(tmp_path, command)
    target = tmp_path / "elsewhere" / "target"
    out.parent.mkdir()
    out.symlink_to(target)
    if kind == "folder":
        target.mkdir(parents=True)
    elif kind == "file":
        target.parent.mkdir()
        target.write_text("mine")
    writes = kind == "dangling" or (kind == "folder" and command != "safetensors")
    code = main(["weights", *COMMANDS[command], str(out)])
    assert out.is_symlink()
    if writes:
        assert code == 0
        assert target.is_dir() == (command != "safetensors")
        assert os.listdir(target.parent) == ["target"]
    else:
        assert code == 3
        why = "is a folder, and one file is written here:" if kind == "folder" else "exists already: remove it, or"
        assert capsys.readouterr().err == f"harvest weights: {out} {why} give another path\n"
        assert kind == "folder" or target.read_text() == "mine"
    assert os.listdir(out.parent) == [out.name]


def test_what_version_0_1_0_left_is_removed(tmp_path, capsys):
    """It wrote into folders of its own in the output and beside it, and held no locks."""
    out = tmp_path / "out"
    for folder in (out / ".writing-abc", tmp_path / ".writing-old", tmp_path / ".writing-new"):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"half")
    before = time.time() - 3600
    for path in (tmp_path / ".writing-old/model.safetensors", tmp_path / ".writing-old"):
        os.utime(path, (before, before))
    assert main(["weights", *COMMANDS["import"], str(out)]) == 0
    assert sorted(os.listdir(tmp_path)) == [".writing-new", "out"]  # another command may be writing the new one
    assert sorted(os.listdir(out)) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_stopped_cleans_up(number, tmp_path):
    """Stopped in the middle by the signal itself, not by an exception that stands for it."""
    script = (
        "import os, signal, sys\n"
        "def end(*_): raise SystemExit(143)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "def hook(name, details):\n"
        "    if name == 'os.rename' and str(details[0]).startswith(sys.argv[2]):\n"
        "        os.kill(os.getpid(), int(sys.argv[1]))\n"
        "sys.addaudithook(hook)\n"
        "from harvest_jax.cli import main\n"
        "sys.exit(main(sys.argv[3:]))\n"
    )
    words = ["weights", *COMMANDS["hf"], str(tmp_path / "deep/out")]
    command = [sys.executable, "-c", script, str(int(number)), str(tmp_path), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 128 + number
    assert os.listdir(tmp_path) == []
