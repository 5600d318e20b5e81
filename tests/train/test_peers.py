"""Processes that look after each other: real ones, one of which fails, dies, is stopped or never comes."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from harvest_jax.train.peers import Peers
from tests.helpers.processes import running
from tests.helpers.train_command import environment

HEARTBEAT = 5

PROGRAM = """
import os, signal, sys, time
from harvest_jax import signals

def main():
    from harvest_jax.errors import DataError, HarvestError
    from harvest_jax.train import distributed
    try:
        distributed.initialize_from_environment()
        with distributed.failing_together():
            print("ready", flush=True)
            if sys.stdin.readline() == "fail\\n":
                raise DataError("a clip that only this process has")
    except HarvestError as error:
        print(f"harvest train: {error}", file=sys.stderr)
        return error.exit_code
    return 0

sys.exit(signals.run_program("program", main))
"""


def in_variables_of_ours(count):
    """Environments of processes that find each other by this project's variables."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    where = {"HARVEST_COORDINATOR": f"127.0.0.1:{port}", "HARVEST_NUM_PROCESSES": str(count)}
    return [where | {"HARVEST_PROCESS_ID": str(rank)} for rank in range(count)]


def in_slurm(count):
    """The same in a job of Slurm, whose number gives JAX the port: 61440 to 65535."""
    for job in range(os.getpid(), os.getpid() + 4096):
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", 61440 + job % 4096))
            break
    where = {"SLURM_JOB_ID": str(job), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": str(count)}
    return [where | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(count)]


@contextlib.contextmanager
def processes(count, come=None, heartbeat=HEARTBEAT, wait=120, where=in_variables_of_ours):
    """The processes of a run of PROGRAM; `come`: the numbers of those that are started."""
    times = {"HARVEST_HEARTBEAT_SECONDS": str(heartbeat), "HARVEST_INITIALIZATION_SECONDS": str(wait)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                running([sys.executable, "-c", PROGRAM], env=environment(**times, **variables), **pipes)
            )
            for rank, variables in enumerate(where(count))
            if come is None or rank in come
        ]


def begun(found):
    for process in found:
        assert process.stdout.readline() == "ready\n"


def ends(process):
    """Status and lines on standard error."""
    return process.wait(120), process.stderr.read().splitlines()[1:]  # the first says what it waits for


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_of_one_ends_all_with_its_status_and_its_words(failing):
    with processes(2) as found:
        begun(found)
        found[failing].stdin.write("fail\n")
        found[failing].stdin.flush()
        began = time.monotonic()
        assert ends(found[failing]) == (3, ["harvest train: a clip that only this process has"])
        words = f"harvest train: process {failing} ended the run: a clip that only this process has"
        assert ends(found[1 - failing]) == (3, [words])
        assert time.monotonic() - began < 2 * HEARTBEAT


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_dies_or_is_stopped_is_named_and_the_others_end_with_6(number):
    with processes(3) as found:
        begun(found)
        found[1].send_signal(number)
        for process in (found[0], found[2]):
            status, lines = ends(process)
            assert status == 6, lines
            (line,) = lines  # and no page of JAX's
            assert "process 1 has been silent for" in line


@pytest.mark.slow
def test_a_stopped_process_0_is_named_by_the_others(tmp_path):
    with processes(2) as found:
        begun(found)
        found[0].send_signal(signal.SIGSTOP)
        status, lines = ends(found[1])
    assert status == 6, lines
    assert "process 0 has been silent for" in lines[0]


@pytest.mark.parametrize(("where", "host"), [(in_variables_of_ours, "127.0.0.1"), (in_slurm, "localhost")])
def test_a_process_that_never_comes_is_named(where, host):
    with processes(3, come=(0, 2), wait=3, where=where) as found:
        for process in found:
            status, lines = ends(process)
            assert status == 6, lines
            (line,) = lines
            assert f"process 1 of 3 did not come to {host}:" in line or f"process 0 was not at {host}:" in line


def test_a_process_0_that_never_comes_is_named():
    with processes(2, come=(1,), wait=2) as found:
        status, (line,) = ends(found[0])
    assert status == 6, line
    assert "process 0 was not at 127.0.0.1:" in line
    assert "Connection refused" in line


def test_a_stop_is_obeyed_while_a_process_waits_for_the_others():
    with processes(2, come=(0,)) as found:
        assert found[0].stderr.readline().startswith("waiting up to 120 s for the other processes")
        time.sleep(0.5)
        found[0].terminate()
        began = time.monotonic()
        assert found[0].wait(60) == 143
        assert time.monotonic() - began < 10
        assert found[0].stderr.read() == "program: stopped by SIGTERM\n"


@pytest.mark.slow
def test_a_done_process_does_not_count_as_silent():
    with processes(2, heartbeat=2) as found:
        begun(found)
        found[1].stdin.write("done\n")
        found[1].stdin.flush()
        time.sleep(8)  # more than JAX's three heartbeats: it is alive, and waits for process 0
        found[0].stdin.write("done\n")
        found[0].stdin.flush()
        assert [ends(process) for process in found] == [(0, []), (0, [])]


def test_of_many_processes_those_that_stand_elsewhere_are_named(monkeypatch):
    def standing(*words):
        monkeypatch.setattr("harvest_jax.checkpoint.notes.place", lambda: (0, len(words)))
        peers = Peers(30.0)
        peers._heard = {rank: f"7 {word}" for rank, word in enumerate(words)}
        return peers.others()

    computing, reading = "step 17, computing", "step 17, reading its batch"
    assert standing(computing, computing) == f"all 2 processes: {computing}"
    assert standing(computing, reading) == f"process 0: {computing}; process 1: {reading}"
    assert standing(*[computing] * 5, reading) == f"process 5: {reading}; the others: {computing}"
