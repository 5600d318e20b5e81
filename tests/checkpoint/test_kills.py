"""Runs that are killed at any moment go on from their newest complete step."""

import contextlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harvest_jax.checkpoint import digests
from tests.helpers.checkpoints import step_folder

ROOT = Path(__file__).resolve().parents[2]

LOOP = """
import sys
from pathlib import Path
import grain, jax, jax.numpy as jnp, numpy as np
from harvest_jax.checkpoint.checkpointer import Checkpointer

batches = iter(grain.MapDataset.range(10**6).batch(2).to_iter_dataset())
noise = np.random.default_rng(0).normal(size=(256, 1024)).astype(np.float32)
state = {"params": {"x": jnp.asarray(noise)}, "step": jnp.int32(0)}
advance = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state))
step = 0
text = {"text": jnp.asarray(noise)}
with Checkpointer(Path(sys.argv[1]), 2, {}) as checkpointer:
    restored, frozen = checkpointer.restore(state, text, batches)
    if frozen is None:
        checkpointer.save_frozen(text)
    if restored is not None:
        step, expected = int(restored["step"]), state
        for _ in range(step):
            expected = advance(expected)
        state = restored
        assert jax.tree.all(jax.tree.map(np.array_equal, state, expected))
    print("restored", step, flush=True)
    while True:
        assert next(batches)[0] == 2 * step
        state, step = advance(state), step + 1
        checkpointer.save(step, state, batches)
        print("begun", step, flush=True)
"""


def newest_good_step(workdir):
    numbers = [int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal()]
    for step in sorted(numbers, reverse=True):
        with contextlib.suppress(digests.DamagedError):
            digests.verify(step_folder(workdir, step))
            return step
    return 0


def wait_for_a_save_in_flight(workdir):
    until = time.monotonic() + 5
    while not list(workdir.glob("checkpoints/*.orbax-checkpoint-tmp")) and time.monotonic() < until:
        pass


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_from_the_newest_good_step(tmp_path):
    rng, expected = random.Random(0), 0
    moments = [lambda: time.sleep(rng.uniform(0, 0.3)), lambda: wait_for_a_save_in_flight(tmp_path)]
    for kill_when in [*moments, *moments, moments[0], lambda: None]:
        command = [sys.executable, "-c", LOOP, str(tmp_path)]
        with open(tmp_path / "log", "ab") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
        with process:
            try:
                assert process.stdout.readline() == f"restored {expected}\n", (tmp_path / "log").read_text()
                assert process.stdout.readline() == f"begun {expected + 1}\n"
                kill_when()
            finally:
                process.send_signal(signal.SIGKILL)
        expected = newest_good_step(tmp_path)
    assert expected > 0
