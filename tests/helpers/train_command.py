"""`harvest train` as a command line: a small run that takes seconds."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HARVEST = (sys.executable, "-m", "harvest_jax")


def train_arguments(shards: Path | str, workdir: Path | str, *overrides: str) -> list[str]:
    """Arguments of `harvest train`: 12 steps of 8 clips, all logged; `overrides` are FIELD=VALUE."""
    fields = {
        "data.shards": shards,
        "model.init_from": ROOT / "harvest_jax/demo/data/image_clip",
        "model.num_frames": 4,
        "train.steps": 12,
        "train.batch_size": 8,
        "train.log_every": 1,
        "train.save_every": 3,
        "train.warmup_steps": 2,
    }
    words = [*(f"{name}={value}" for name, value in fields.items()), *overrides]
    config = ROOT / "configs" / "demo.py"
    return ["--config", str(config), "--workdir", str(workdir), *(f"--config.{word}" for word in words)]


def train_command(shards: Path | str, workdir: Path | str, *overrides: str) -> list[str]:
    """The whole command of one process."""
    return [*HARVEST, "train", *train_arguments(shards, workdir, *overrides)]


def local_command(arguments: Sequence[str], *options: str) -> list[str]:
    """The same for several processes on this machine, through `launch.local`."""
    return [sys.executable, "-m", "launch.local", *options, "--", *arguments]


def environment(**more: str) -> dict[str, str]:
    """One CPU device a process, whatever this test process uses."""
    found = {name: value for name, value in os.environ.items() if not name.startswith(("HARVEST_", "SLURM_"))}
    return found | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | more
