"""Two processes of two devices each, through the launcher, train as one process with one device."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
STEPS = 4


def train(shards, workdir, launcher, flags, *overrides, begins=1):
    command = [
        sys.executable,
        "-m",
        *launcher,
        "--config",
        str(ROOT / "configs/demo.py"),
        "--workdir",
        str(workdir),
        f"--config.data.shards={shards}",
        f"--config.model.init_from={ROOT / 'harvest_jax/demo/data/image_clip'}",
        f"--config.train.steps={STEPS}",
        "--config.train.batch_size=8",
        "--config.train.log_every=1",
        "--config.train.save_every=2",
        "--config.train.warmup_steps=0",
        *overrides,
    ]
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert ("go on from step" in done.stdout) == (begins > 1)
    return np.array([line["loss"] for line in lines])


@pytest.mark.slow
def test_losses_do_not_depend_on_processes_and_devices(world_shards, tmp_path):
    one = train(world_shards, tmp_path / "one", ["harvest_jax", "train"], "")
    eight = train(
        world_shards, tmp_path / "eight", ["harvest_jax", "train"], "--xla_force_host_platform_device_count=8"
    )
    launcher = ["launch.local", "--processes", "2", "--devices", "2", "--"]
    # each process stands for a slice: parameters are split within it, and gradients travel between the two
    slices = ["--config.mesh.dcn_data=2", "--config.mesh.fsdp=2"]
    two_by_two = train(world_shards, tmp_path / "two", launcher, "", *slices)
    np.testing.assert_allclose(eight, one, rtol=1e-5)
    np.testing.assert_allclose(two_by_two, one, rtol=1e-5)
    assert (tmp_path / "two" / "export" / "model.safetensors").is_file()
    assert list((tmp_path / "two" / "compiled").glob("*-cache"))  # both see this folder

    # what two processes began, one process ends: as if step 4 had never been
    shutil.rmtree(tmp_path / "two" / "checkpoints" / str(STEPS))
    resumed = train(world_shards, tmp_path / "two", ["harvest_jax", "train"], "", begins=3)
    np.testing.assert_allclose(resumed, one, rtol=1e-5)
