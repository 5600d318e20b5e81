"""The experiments of docs/results.md: the paper's claims on the generated world, from nothing to committed figures.

    python benchmarks/claims.py --root runs/claims                    # all of it, hours on a CPU
    python benchmarks/claims.py --root runs/claims --only dropping    # what it needs, and this claim
    python benchmarks/claims.py --root runs/claims --collect          # only read what is there

It writes the world and its shards, trains the two image models, runs the sweeps of configs/sweeps/ and the evaluations
that are no training, and collects their scores in benchmarks/results/claims/, from which `make results` makes the page.
Stopped at any moment it continues with the same command: what is complete is not done again.
"""

import argparse
import csv
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from configs.world import SEEDS

ROOT = Path(__file__).resolve().parents[1]
FOUND = ROOT / "benchmarks/results/claims"
HARVEST = (sys.executable, "-m", "harvest_jax")
TRAIN_SPLITS = {"train": 20_000, "train_1k": 1000, "train_10k": 10_000, "train_100k": 100_000}
TEST_SPLITS = {"retrieval": 500, "choice": 3000, "questions": 800}
STILL_SPLITS = {"stills": 60_000, "unmarked": 60_000, "stills_test": 500}
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
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


class Lab:
    """The folder of the experiments: everything that they share is made when it is first asked for."""

    def __init__(self, root: Path, train_words: Sequence[str]) -> None:
        """`train_words`: further words of every training on videos, such as --config.train.steps=500."""
        self.root, self.train_words = root, list(train_words)

    def shards(self, *splits: str) -> Path:
        """The shard folder, with these splits complete."""
        folder, sizes = self.root / "shards", TRAIN_SPLITS | TEST_SPLITS | STILL_SPLITS
        for split in splits:
            if not (folder / f"checksums-{split}.txt").exists():
                world = self.root / f"{split}.world.json"
                run(*HARVEST, "world", "--out", world, "--clips", f"{split}={sizes[split]}")
                frames = 1 if split in STILL_SPLITS else 8 if split in TEST_SPLITS else 16
                run(*HARVEST, "shards", "--manifest", world, "--out", folder, "--split", split, "--frames", frames)
        return folder

    def image_model(self, split: str = "stills") -> Path:
        """The image model of marked or unmarked stills."""
        workdir = self.root / f"image_{split}"
        if not is_model(workdir / "export"):
            words = [f"--config.data.shards={self.shards(split)}", f"--config.data.split={split}"]
            run(*HARVEST, "train", "--config", "world_image", "--workdir", workdir, *words)
        return workdir / "export"

    def sweep(self, claim: str, **fields: object) -> Path:
        """The sweep of a claim, complete."""
        config, name = SWEEPS[claim]
        folder = self.root / claim
        train = ["train_1k", "train_10k", "train_100k"] if claim == "data" else ["train"]
        words = {"data.shards": self.shards(*train, *TEST_SPLITS, "stills_test"), "model.init_from": self.image_model()}
        own = [f"--config.{field}={value}" for field, value in (words | fields).items()]
        named = ["--sweep", name] if name else []
        run(sys.executable, "-m", "launch.sweep", "--config", f"sweeps/{config}", "--workdir_root", folder,
            "--backend", "local", *named, *own, *self.train_words)  # fmt: skip
        return folder

    def model_of(self, seed: int) -> Path:
        """The model of the method's own setting with a seed: that of the sweep `dropping` with a tenth kept."""
        (folder,) = (self.root / "dropping").glob(f"keep_ratio=0.1_seed={seed}-*/export")
        return folder

    def evaluate(self, model: Path, name: str, config: str, out: Path, **fields: object) -> dict[str, Any]:
        """A result of `harvest eval`, made if it is not there."""
        path = out / f"{name}.json"
        if not path.exists():
            own = [f"--config.{field}={value}" for field, value in fields.items()]
            shards = f"--config.data.shards={self.shards(*TEST_SPLITS, 'stills_test')}"
            run(*HARVEST, "eval", "--config", config, "--model", model, "--out", path, shards, *own)
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return found


def is_model(folder: Path) -> bool:
    """Whether a model folder is complete: its description is written last."""
    return (folder / "config.json").is_file()


def run(*words: object) -> None:
    """A command, shown; the program ends with its status if that is not 0."""
    line = [str(word) for word in words]
    print("+", shlex.join(["python", *line[1:]]), file=sys.stderr, flush=True)
    status = subprocess.run(line, cwd=ROOT, check=False).returncode
    if status:
        raise SystemExit(status)


def collect_sweep(folder: Path) -> dict[str, Any]:
    """The runs of a sweep, from its results.csv, with the facts that they share."""
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = [{name: _value(text) for name, text in row.items() if text} for row in csv.DictReader(file)]
    rows = [row for row in rows if row["complete"]]
    if not rows:
        raise SystemExit(f"{folder} has no complete run: nothing to collect")
    first = folder / str(rows[0]["run"])
    config = json.loads((first / "config.json").read_text("utf-8"))
    result = json.loads(next((first / "results").glob("*.json")).read_text("utf-8"))
    train = {name: config["train"][name] for name in ("steps", "batch_size", "learning_rate")}
    return {"training": train, "machine": machine(result), "runs": rows}


def machine(result: dict[str, Any]) -> dict[str, Any]:
    """Where a result was made: device, cores, versions."""
    facts = result["run"]
    return {
        "device": facts["device"],
        "cores": os.cpu_count(),
        "python": facts["python"],
        "jax": facts["libraries"]["jax"],
        "version": facts["version"],
    }


def _value(text: str) -> Any:
    if text in ("True", "False"):
        return text == "True"
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


def scores(result: dict[str, Any]) -> dict[str, Any]:
    """The percentages of a result: the whole, and each factor; beside them those of averaged frames."""
    metrics = result["metrics"]
    if result["task"] == "retrieval":
        return {"R@1": metrics["t2v"]["R@1"]}
    found = {"accuracy": metrics["accuracy"], **{f"type {name}": of(one) for name, one in metrics["per_type"].items()}}
    average = metrics.get("frame_average")
    return found | ({"frame_average": scores({"task": result["task"], "metrics": average})} if average else {})


def of(one: Any) -> float:
    """The score of one type."""
    return float(one["accuracy"] if isinstance(one, dict) else one)


def image_models(lab: Lab) -> dict[str, Any]:
    """Both image models and the video models, factor by factor, with the average of their frames."""
    rows = []
    for name, split in (("image model, marks", "stills"), ("image model, no marks", "unmarked")):
        model, out = lab.image_model(split), lab.root / "image_models" / split
        rows.append({"model": name, **_both(lab, model, out)})
    for seed in SEEDS:
        out = lab.root / "image_models" / f"video_{seed}"
        rows.append({"model": "video model", "seed": seed, **_both(lab, lab.model_of(seed), out)})
    for seed in SEEDS:
        folder = lab.root / "unmarked" / f"seed={seed}"
        if not is_model(folder / "export"):
            words = {"data.shards": lab.shards("train"), "model.init_from": lab.image_model("unmarked"), "seed": seed}
            own = [f"--config.{field}={value}" for field, value in words.items()]
            run(*HARVEST, "train", "--config", "world", "--workdir", folder, *own, *lab.train_words)
        out = lab.root / "image_models" / f"unmarked_video_{seed}"
        rows.append({"model": "video model, no marks", "seed": seed, **_both(lab, folder / "export", out)})
    result = json.loads((lab.root / "image_models" / "stills" / "choice.json").read_text("utf-8"))
    return {"machine": machine(result), "runs": rows}


def _both(lab: Lab, model: Path, out: Path) -> dict[str, Any]:
    options = {"data.split": "choice", "frame_average": True}
    choice = lab.evaluate(model, "choice", "eval/multiple_choice", out, **options)
    stills = lab.evaluate(model, "stills", "eval/retrieval", out, **{"data.split": "stills_test"})
    return {"choice": scores(choice), "stills": scores(stills)}


def mixes(lab: Lab) -> dict[str, Any]:
    """Weights between the image model and the video model: on clips, and on pictures as before."""
    folder, rows = lab.root / "mixes", []
    start = folder / "image_8_frames"
    if not is_model(start):
        run(*HARVEST, "weights", "import", lab.image_model(), "--out", start, "--num_frames", 8)
    for seed in SEEDS:
        for alpha in ALPHAS:
            out = folder / f"alpha={alpha}_seed={seed}"
            if not is_model(out / "model"):
                words = ["--alpha", alpha, "--out", out / "model"]
                run(*HARVEST, "weights", "mix", start, lab.model_of(seed), *words)
            choice = lab.evaluate(out / "model", "choice", "eval/multiple_choice", out, **{"data.split": "choice"})
            stills = lab.evaluate(out / "model", "stills", "eval/retrieval", out, **{"data.split": "stills_test"})
            rows.append({"alpha": alpha, "seed": seed, "choice": scores(choice), "stills": scores(stills)})
    return {"machine": machine(choice), "runs": rows}


EVALUATED: dict[str, Callable[[Lab], dict[str, Any]]] = {"image_models": image_models, "mixes": mixes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of everything that is made; it may be removed")
    names = [*SWEEPS, *EVALUATED]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="claims; image_models needs dropping")
    parser.add_argument("--collect", action="store_true", help="run nothing; collect the sweeps that have results")
    args, train_words = parser.parse_known_args()
    if unknown := [word for word in train_words if not word.startswith("--config.")]:
        parser.error(f"{unknown[0]}: no such option (--config.FIELD=VALUE is set in every training on videos)")
    FOUND.mkdir(parents=True, exist_ok=True)
    lab = Lab(args.root.absolute(), train_words)
    for claim in args.only:
        if claim in SWEEPS:
            if args.collect and not (lab.root / claim / "results.csv").exists():
                continue
            found = collect_sweep(lab.root / claim if args.collect else lab.sweep(claim))
        elif args.collect:
            continue
        else:
            found = EVALUATED[claim](lab)
        (FOUND / f"{claim}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"{claim}: {len(found['runs'])} runs in {FOUND / claim}.json", flush=True)


if __name__ == "__main__":
    main()
