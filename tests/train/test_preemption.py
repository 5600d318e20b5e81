"""Signals: the first asks for an end between two steps, a second Ctrl-C is obeyed at once, processes agree."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harvest_jax.train.preemption import StopSignal

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_a_request_and_the_old_handlers_come_back(number, capfd):
    before = signal.getsignal(number)
    with StopSignal() as stop:
        stop.listen()
        assert not stop.requested(1)
        os.kill(os.getpid(), number)
        assert stop.requested(1)
        assert stop.requested(7)
        assert stop.name == number.name
    assert signal.getsignal(number) is before
    assert f"{number.name}: saving and stopping" in capfd.readouterr().err


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_a_second_interrupt_is_obeyed_at_once():
    with StopSignal() as stop:
        stop.listen()
        interrupt()
        assert stop.requested(1)
        with pytest.raises(KeyboardInterrupt):
            interrupt()


def test_more_terminations_change_nothing_and_an_interrupt_after_one_still_waits():
    with StopSignal() as stop:
        stop.listen()
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        interrupt()
        assert stop.name == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            interrupt()


def test_outside_the_main_thread_it_never_fires():
    seen = []

    def work():
        with StopSignal() as stop:
            stop.listen()
            seen.append(stop.requested(1))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


# A training loop in miniature, in one process or several. What it says goes to a file: Gloo writes on standard output.
TRAINER = """
import os, signal, sys
from pathlib import Path
workdir, said, port, count, rank = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])

def say(text):
    with said.open("a") as file:
        print(text, file=file)

import jax
jax.config.update("jax_platforms", "cpu")
if count > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", count, rank, heartbeat_timeout_seconds=10)
import grain, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from harvest_jax.errors import HarvestError, Preempted
from harvest_jax.checkpoint import consensus
from harvest_jax.checkpoint.checkpointer import Checkpointer
from harvest_jax.checkpoint.tree_digest import tree_digest
from harvest_jax.train.preemption import StopSignal

mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
split = NamedSharding(mesh, PartitionSpec("data"))
whole = NamedSharding(mesh, PartitionSpec())
values = np.arange(48, dtype=np.float32).reshape(8, 6)
put_whole = lambda x: jax.make_array_from_callback((), whole, lambda index: np.int32(x))
put = lambda x: jax.make_array_from_callback(x.shape, split, lambda index: x[index])
state = {"params": {"w": put(values)}, "opt_state": {"mu": put(values + 0.5)}, "step": put_whole(0)}
add_one = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
batches = iter(grain.MapDataset.range(rank, 1000, count).to_iter_dataset())

def train():
    global state
    with Checkpointer(workdir, 3, {"seed": 0}) as checkpointer, StopSignal(agree_every=4) as stop:
        text = {"text": put(values)}
        step = 0
        stop.listen()
        restored, frozen = checkpointer.restore(state, text, batches)
        if frozen is None:
            digest = checkpointer.save_frozen(text)
            assert digest == tree_digest({"text": values}), "the digest of an array spread over processes"
        if restored is not None:
            state, step = restored, int(restored["step"])
            for shard in state["params"]["w"].addressable_shards:
                assert np.array_equal(shard.data, values[shard.index] + step)
        say(f"restored {step}")
        while step < 40:
            assert next(batches) == rank + count * step
            state, step = add_one(state), step + 1
            if step == 17 and rank == count - 1 and restored is None:
                os.kill(os.getpid(), signal.SIGTERM)
            stopping = stop.requested(step)
            if stopping or step % 5 == 0:
                checkpointer.save(step, state, batches)
            if stopping:
                checkpointer.wait()
                raise Preempted(f"stopped by {stop.name} at step {step}")
        for number, want in [("7", 7), ("8", 8)]:
            assert consensus.on_primary(lambda: int(number)) == want

try:
    train()
except HarvestError as error:
    say(error)
    sys.exit(error.exit_code)
"""


def run_trainers(workdir, count):
    """(exit code, what it said, standard error) of each process."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    said = [workdir.with_name(f"{workdir.name}-{rank}-of-{count}") for rank in range(count)]
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TRAINER, str(workdir), str(said[rank]), str(port), str(count), str(rank)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    outcomes = []
    try:
        for process, path in zip(processes, said, strict=True):
            _, err = process.communicate(timeout=90)
            outcomes.append((process.returncode, path.read_text() if path.exists() else "", err))
            path.unlink(missing_ok=True)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return outcomes


@pytest.mark.slow
def test_terminated_it_saves_and_ends_with_42_and_goes_on(tmp_path):
    ((code, out, err),) = run_trainers(tmp_path / "run", 1)
    assert (code, out) == (42, "restored 0\nstopped by SIGTERM at step 17\n"), err
    ((code, out, err),) = run_trainers(tmp_path / "run", 1)
    assert (code, out) == (0, "restored 17\n"), err


@pytest.mark.slow
def test_processes_stop_save_and_reject_damage_together(tmp_path):
    first, second = run_trainers(tmp_path / "run", 2)
    # Only the second process got the signal, at step 17; both see it at the next multiple of 4.
    assert first[:2] == (42, "restored 0\nstopped by a signal to another process at step 20\n"), first[2]
    assert second[:2] == (42, "restored 0\nstopped by SIGTERM at step 20\n"), second[2]
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints" / "20" / "data").iterdir()) == [
        "process_0-of-2.json",
        "process_1-of-2.json",
    ]
    os.truncate(tmp_path / "run" / "checkpoints" / "20" / "params" / "manifest.ocdbt", 10)
    for code, out, err in run_trainers(tmp_path / "run", 2):
        assert (code, out) == (0, "restored 15\n"), err
    assert (tmp_path / "run" / "quarantine" / "20").is_dir()
