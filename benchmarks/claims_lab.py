"""The folder in which the experiments of docs/results.md are made; everything is made when it is first asked for."""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harvest_jax import signals
from harvest_jax.errors import Preempted
from harvest_jax.files import write_atomically
from harvest_jax.machine import available_cores
from harvest_jax.synthetic import WORLD_VERSION
from launch.processes import run_one
from launch.scoring import Scoring
from launch.sweep_runs import expand

HARVEST = (sys.executable, "-m", "harvest_jax")
TRAIN_SPLITS = {"train": 20_000, "train_1k": 1000, "train_10k": 10_000, "train_100k": 100_000}
TEST_SPLITS = {"retrieval": 500, "choice": 3000, "questions": 800}
STILL_SPLITS = {"stills": 60_000, "unmarked": 60_000, "stills_test": 500}
STOP_STATUSES = {Preempted.exit_code, *signals.STATUSES}
# claim -> (config of configs/sweeps/, its function sweep_NAME)
SWEEPS = {
    "dropping": ("world_dropping", ""),
    "dropping_arithmetic": ("world_dropping", "arithmetic"),
    "masking": ("world_masking", ""),
    "text": ("world_text", ""),
    "scope": ("world_scope", ""),
    "unmasked": ("world_unmasked", ""),
    "inference": ("world_inference", ""),
    "data": ("world_data", ""),
}


class ClaimError(Exception):
    """What a claim needs is not there; the message says what. `status` is that of the command that failed."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class Lab:
    """The folder: shards, image models, and one folder of runs, so that a setting of several claims is trained once.

    Its `claims.json` keeps what all of it was made with, and another call with other words is refused: names of
    folders do not tell them.
    """

    def __init__(self, root: Path, train_words: Sequence[str] = (), collect: bool = False) -> None:
        """Open the folder, or begin it.

        Args:
          root: absolute path.
          train_words: further words of every training on videos, such as --config.train.steps=500.
          collect: make nothing, read what is there; `train_words` are those it was made with.

        Raises:
          ClaimError: the folder was made with other words, or of another version of the world.
        """
        self.root, self.collect, self.runs = root, collect, root / "runs"
        path = root / "claims.json"
        made: dict[str, Any] = {"world": WORLD_VERSION, "training": list(train_words), "cores": available_cores()}
        if path.exists():
            made = json.loads(path.read_text("utf-8"))
            now = {"world": WORLD_VERSION, "training": made["training"] if collect else list(train_words)}
            for name, value in now.items():
                if made[name] != value:
                    raise ClaimError(
                        f"{root} was made with {name} {made[name]}, not {value}: give the same, or another --root"
                    )
        elif not collect:
            root.mkdir(parents=True, exist_ok=True)
            write_atomically(path, (json.dumps(made) + "\n").encode())
        self.train_words: list[str] = made["training"]
        self.cores: int = made["cores"]

    def run(self, *words: object) -> None:
        """A command, shown. A signal is passed on to it, and ends this program as well.

        Raises:
          ClaimError: it failed; with `collect`, always.
        """
        line = [str(word) for word in words]
        shown = shlex.join(["python", *line[1:]])
        if self.collect:
            raise ClaimError(f"not there yet; it is made by: {shown}")
        print("+", shown, file=sys.stderr, flush=True)
        _check(run_one(line), shown)

    def shards(self, *splits: str) -> Path:
        """The shard folder, with these splits complete."""
        folder, sizes = self.root / "shards", TRAIN_SPLITS | TEST_SPLITS | STILL_SPLITS
        for split in splits:
            if not (folder / f"checksums-{split}.txt").exists():
                world = self.root / f"{split}.world.json"
                self.run(*HARVEST, "world", "--out", world, "--clips", f"{split}={sizes[split]}")
                frames = 1 if split in STILL_SPLITS else 8 if split in TEST_SPLITS else 16
                self.run(*HARVEST, "shards", "--manifest", world, "--out", folder, "--split", split, "--frames", frames)
        return folder

    def image_model(self, split: str = "stills") -> Path:
        """The image model of marked or unmarked stills."""
        workdir = self.root / f"image_{split}"
        if not is_model(workdir / "export"):
            words = [f"--config.data.shards={self.shards(split)}", f"--config.data.split={split}"]
            self.run(*HARVEST, "train", "--config", "world_image", "--workdir", workdir, *words)
        return workdir / "export"

    def sweep(self, claim: str) -> Path:
        """The folder of a claim's tables, after its sweep.

        Raises:
          ClaimError: a run or an evaluation failed; the tables have the others.
        """
        config, name = SWEEPS[claim]
        folder = self.root / claim
        named = ["--sweep", name] if name else []
        splits = ("train_1k", "train_10k", "train_100k") if claim == "data" else ("train",)
        common = [f"--config.{field}" for field in self.common(*splits)]
        self.run(sys.executable, "-m", "launch.sweep", "--config", f"sweeps/{config}", "--workdir_root", self.runs,
            "--results", folder, "--backend", "local", *named, *common)  # fmt: skip
        return folder

    def common(self, *splits: str, image: str = "stills") -> list[str]:
        """field=value of every training on videos of these splits."""
        shards = self.shards(*splits, *TEST_SPLITS, "stills_test")
        fields = [f"data.shards={shards}", f"model.init_from={self.image_model(image)}"]
        return fields + [word.removeprefix("--config.") for word in self.train_words]

    def model_of(self, seed: int) -> Path:
        """The model of the method's own setting with a seed: that of the sweep `dropping` with a tenth kept.

        Raises:
          ClaimError: it is not trained.
        """
        for run in expand("sweeps/world_dropping", self.runs, "", self.common("train")):
            if run.values == {"model.keep_ratio": 0.1, "seed": seed} and run.complete:
                return run.workdir / "export"
        raise ClaimError(f"the model with a tenth of the patches and seed {seed} is not trained: run --only dropping")

    def unmarked_model_of(self, seed: int) -> Path:
        """The model of the method's setting that starts from the image model without marks."""
        workdir = self.root / "unmarked" / f"seed={seed}"
        if not is_model(workdir / "export"):
            own = [f"--config.{field}" for field in (*self.common("train", image="unmarked"), f"seed={seed}")]
            self.run(*HARVEST, "train", "--config", "world", "--workdir", workdir, *own)
        return workdir / "export"

    def evaluate(self, model: Path, name: str, config: str, out: Path, **fields: object) -> dict[str, Any]:
        """A result of `harvest eval`, made if it is not there or was made of something else."""
        own = [f"{field}={value}" for field, value in fields.items()]
        shards = f"data.shards={self.shards(*TEST_SPLITS, 'stills_test')}"
        scoring = Scoring(config, model, (shards, *own), out / f"{name}.json")
        if not scoring.current:
            shown = shlex.join(["harvest", "eval", *scoring.arguments])
            if self.collect:
                raise ClaimError(f"not there yet; it is made by: {shown}")
            print("+", shown, file=sys.stderr, flush=True)
            _check(scoring.make(), shown)
        found: dict[str, Any] = json.loads(scoring.out.read_text("utf-8"))
        return found


def is_model(folder: Path) -> bool:
    """Whether a model folder is complete: its description is written last."""
    return (folder / "config.json").is_file()


def _check(status: int, shown: str) -> None:
    if status in STOP_STATUSES:
        raise SystemExit(status)
    if status:
        raise ClaimError(f"status {status} of: {shown}", status)
