"""Ctrl-C and SIGTERM end real processes: status 130 or 143, one line, the cleanup done, no children left."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.processes import is_running, running, wait_until
from tests.helpers.train_command import HARVEST, ROOT, environment, train_command

SHARDS = ROOT / "tests" / "data" / "version_0_1_0" / "shards"
CTRL_C = b"\x03"


# Makes the terminal that is its standard input the controlling one, as a shell does, then becomes the program. In
# Python's pty.fork this process would fork, which JAX warns of once another test has imported it.
ON_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, command):
        self._terminal, program = pty.openpty()
        starter = [sys.executable, "-S", "-c", ON_TERMINAL, *command]
        self._process = subprocess.Popen(
            starter, stdin=program, stdout=program, stderr=program, env=environment(), start_new_session=True
        )
        os.close(program)
        self.shown = ""

    def wait_for_handlers(self):
        """Python itself takes some time to start; harvest's first act is the thread that watches the signals."""
        wait_until(lambda: len(os.listdir(f"/proc/{self._process.pid}/task")) > 1)

    def press(self, key):
        os.write(self._terminal, key)

    def show(self):
        """Wait for more output; False at the end."""
        try:
            data = os.read(self._terminal, 65536)
        except OSError:
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)

    def close(self):
        """As a lost connection does; nothing is shown any more."""
        os.close(self._terminal)
        self._terminal = None

    def status(self):
        while self._terminal is not None and self.show():
            pass
        if self._terminal is not None:
            os.close(self._terminal)
        return self._process.wait()


@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.3, 5.0])  # while it imports, and while XLA compiles
def test_ctrl_c_at_the_start_ends_with_130_and_one_line(seconds):
    terminal = Terminal([*HARVEST, "bench", "step"])
    terminal.wait_for_handlers()
    time.sleep(seconds)
    terminal.press(CTRL_C)
    assert terminal.status() == 130, terminal.shown
    assert terminal.shown.replace("^C", "").split("\r\n") == ["harvest bench: interrupted", ""]


def test_ctrl_c_before_the_first_step_ends_with_130_and_saves_nothing(tmp_path):
    terminal = Terminal(train_command(SHARDS, tmp_path / "run"))
    while "begin 12 steps" not in terminal.shown:
        assert terminal.show()
    terminal.press(CTRL_C)
    assert terminal.status() == 130, terminal.shown
    assert "harvest train: interrupted" in terminal.shown
    assert "Traceback" not in terminal.shown
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_ctrl_c_while_training_saves_and_ends_with_42(tmp_path):
    terminal = Terminal(train_command(SHARDS, tmp_path / "run", "train.steps=100000", "train.save_every=100000"))
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") > 2):
        assert terminal.show()
    terminal.press(CTRL_C)
    assert terminal.status() == 42, terminal.shown
    (step,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert f"stopped by SIGINT, saved at step {step.name}" in terminal.shown
    assert (step / "MANIFEST.json").is_file()


def test_sigterm_ends_a_command_with_143_one_line_and_without_its_children(tmp_path):
    manifest = tmp_path / "manifest.csv"
    rows = [f"{number},clip{number % 8}.mp4,a red square,train" for number in range(5000)]
    manifest.write_text("\n".join(["id,video,caption,split", *rows]) + "\n")
    command = [*HARVEST, "shards", "--manifest", str(manifest), "--root", str(SHARDS.parent / "videos")]
    command += ["--out", str(tmp_path / "shards"), "--workers", "2"]
    with running(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_until(lambda: len(children.read_text().split()) == 2)
        decoders = children.read_text().split()
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert errors.splitlines()[-1] == "harvest shards: stopped by SIGTERM"
    wait_until(lambda: not any(map(is_running, decoders)))


def run_script(body, number, reaction=60.0):
    """(exit status, standard error) of a program that is sent a signal once it has printed "ready".

    Its main thread has `reaction` seconds to react: on a busy machine one is too few for a test of what it then does.
    """
    script = f"""
import ctypes, gc, sys, threading, time
from harvest_jax import signals

signals.REACTION = dict.fromkeys(signals.SIGNALS, {reaction})

def main():
    try:
{body}
    finally:
        print("cleaned up", file=sys.stderr)

sys.exit(signals.run_program("program", main))
"""
    command = [sys.executable, "-c", script]
    with running(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    return process.returncode, errors


WORD = {signal.SIGINT: "program: interrupted\n", signal.SIGTERM: "program: stopped by SIGTERM\n"}


@pytest.mark.parametrize("number", [*WORD, signal.SIGHUP])
def test_the_cleanup_is_done(number):
    body = """
        print("ready", flush=True)
        time.sleep(60)
"""
    word = WORD.get(number, "program: stopped by SIGHUP\n")
    assert run_script(body, number) == (128 + number, f"cleaned up\n{word}")


SETTLED = """
import sys, time
from harvest_jax import signals

def main():
    signals.settle()
    print("ready", flush=True)
    time.sleep(0.5)
    return 42

sys.exit(signals.run_program("program", main))
"""


def test_a_program_that_has_its_status_keeps_it_whatever_comes_until_its_end():
    with running([sys.executable, "-c", SETTLED], env=environment(), stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "ready\n"
        while process.poll() is None:
            process.terminate()
            process.send_signal(signal.SIGHUP)
            time.sleep(0.001)
    assert process.returncode == 42


UNREAD = """
import sys, time
from harvest_jax import signals

def main():
    print("ready", flush=True)
    sys.stdin.read()
    for number in range(3):
        print("a warning that nobody reads", file=sys.stderr)
    return 4

sys.exit(signals.run_program("program", main))
"""


def test_a_reader_of_errors_that_has_gone_changes_no_status():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with running([sys.executable, "-c", UNREAD], env=environment(), **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        process.stderr.close()
        process.stdin.close()
        assert process.wait(60) == 4


LATE = """
import os, signal, sys, threading, time
from harvest_jax import signals

returned = threading.Event()

def slow(status, end=signals.end_process):
    returned.wait(60)
    time.sleep(0.2)
    end(status)

def main():
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signals.SIGNALS)  # another thread takes them: the write goes on
        os.write(1, b"ready\\n" + bytes(1 << 20))  # native, until the reader has read more than a pipe holds
        returned.set()
        time.sleep(60)
    finally:
        returned.set()
        print("cleaned up", file=sys.stderr)

signals.REACTION, signals.end_process = dict.fromkeys(signals.SIGNALS, 0.0), slow
sys.exit(signals.run_program("program", main))
"""


@pytest.mark.parametrize("number", WORD)
def test_a_reaction_after_the_deadline_does_not_print_a_second_line(number):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with running([sys.executable, "-c", LATE], env=environment(), **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stderr.readline() == WORD[number]
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + number, "")


@pytest.mark.parametrize("number", WORD)
def test_an_exception_that_python_discards_is_raised_again(number):
    body = """
        def busy(phase, info):
            if phase == "start":
                print("ready", flush=True)
                time.sleep(60)
        gc.callbacks.append(busy)
        gc.collect()
        gc.callbacks.clear()
        time.sleep(60)
"""
    assert run_script(body, number) == (128 + number, f"cleaned up\n{WORD[number]}")


@pytest.mark.parametrize("number", WORD)
def test_native_code_that_does_not_return_is_left(number):
    body = """
        mutex = ctypes.create_string_buffer(64)
        lock = ctypes.CDLL(None).pthread_mutex_lock
        lock(mutex)
        threading.Timer(0.5, print, ["ready"], {"flush": True}).start()
        lock(mutex)
"""
    assert run_script(body, number, reaction=1.0) == (128 + number, WORD[number])
