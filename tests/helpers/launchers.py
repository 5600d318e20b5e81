"""Running the launchers, and what a launched `harvest train` must have been given."""

import os
import subprocess
from pathlib import Path

from harvest_jax.config import run as run_config

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ["--config", "configs/base.py", "--workdir", "runs/a b; c", "--config.data.shards=my shards", "--config.seed=7"]


def run(*command: object, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the repository, with these environment variables added; its output is captured."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def check_train_arguments(words):
    """The words are those of TRAIN in any order plus distributed=true, and the config accepts the overrides."""
    assert sorted(words) == sorted([*TRAIN, "--config.distributed=true"])
    overrides = [word.removeprefix("--config.") for word in words if word.startswith("--config.")]
    checked = run_config.load(words[words.index("--config") + 1], overrides)
    assert checked.distributed
    assert checked.seed == 7
    assert checked.data.shards == "my shards"
