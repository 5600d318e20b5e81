"""The experiments of docs/results.md: the paper's claims on the generated world, from nothing to committed figures.

    python benchmarks/claims.py --root runs/claims                    # all of it, hours on a CPU
    python benchmarks/claims.py --root runs/claims --only dropping    # what it needs, and this claim
    python benchmarks/claims.py --root runs/claims --collect          # only read what is there

It writes the world and its shards, trains the two image models, runs the sweeps of configs/sweeps/ and the evaluations
that are no training, and collects their scores in benchmarks/results/claims/, from which `make results` makes the page.
Stopped at any moment it continues with the same command: what is complete is not done again. A run that fails is named
in its claim's JSON and at the end; the others go on, and the exit status is that of the failure.
"""

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.claims_lab import HARVEST, SWEEPS, ClaimError, Lab, is_model
from configs.world import SEEDS
from harvest_jax.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
FOUND = ROOT / "benchmarks/results/claims"
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


def collect_sweep(folder: Path, runs: Path, cores: int) -> dict[str, Any]:
    """The trained and scored runs of a sweep, from its results.csv, with the facts that they share; others by name.

    Raises:
      ClaimError: there is no table, or no run is scored.
    """
    path = folder / "results.csv"
    if not path.exists():
        raise ClaimError(f"{path} is not there: its sweep has not run")
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{name: _value(text) for name, text in row.items() if text} for row in csv.DictReader(file)]
    scored = [row for row in rows if row["scored"]]
    if not scored:
        raise ClaimError(f"{path} has no run that is trained and scored: nothing to collect")
    first = runs / str(scored[0]["run"])
    config = json.loads((first / "config.json").read_text("utf-8"))
    result = json.loads(next((first / "results").glob("*.json")).read_text("utf-8"))
    train = {name: config["train"][name] for name in ("steps", "batch_size", "learning_rate")}
    without = [str(row["run"]) for row in rows if not row["scored"]]
    return {"training": train, "machine": machine(result, cores), "runs": scored, "without_scores": without}


def machine(result: dict[str, Any], cores: int) -> dict[str, Any]:
    """Where a result was made: device, cores, versions."""
    facts = result["run"]
    return {
        "device": facts["device"],
        "cores": cores,
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
    rows, folder = [], lab.root / "image_models"
    for name, split in (("image model, marks", "stills"), ("image model, no marks", "unmarked")):
        rows.append({"model": name, **_both(lab, lab.image_model(split), folder / split)})
    for seed in SEEDS:
        rows.append({"model": "video model", "seed": seed, **_both(lab, lab.model_of(seed), folder / f"video_{seed}")})
    for seed in SEEDS:
        out = folder / f"unmarked_video_{seed}"
        rows.append({"model": "video model, no marks", "seed": seed, **_both(lab, lab.unmarked_model_of(seed), out)})
    result = json.loads((folder / "stills" / "choice.json").read_text("utf-8"))
    return {"machine": machine(result, lab.cores), "runs": rows}


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
        lab.run(*HARVEST, "weights", "import", lab.image_model(), "--out", start, "--num_frames", 8)
    for seed in SEEDS:
        video = lab.model_of(seed)
        for alpha in ALPHAS:
            out = folder / f"alpha={alpha}-{video.parent.name}"  # the run's name has the digest of its config
            if not is_model(out / "model"):
                lab.run(*HARVEST, "weights", "mix", start, video, "--alpha", alpha, "--out", out / "model")
            choice = lab.evaluate(out / "model", "choice", "eval/multiple_choice", out, **{"data.split": "choice"})
            stills = lab.evaluate(out / "model", "stills", "eval/retrieval", out, **{"data.split": "stills_test"})
            rows.append({"alpha": alpha, "seed": seed, "choice": scores(choice), "stills": scores(stills)})
    return {"machine": machine(choice, lab.cores), "runs": rows}


EVALUATED: dict[str, Callable[[Lab], dict[str, Any]]] = {"image_models": image_models, "mixes": mixes}


def find(claim: str, lab: Lab) -> tuple[dict[str, Any], ClaimError | None]:
    """What a claim's runs found, and what failed among them.

    Raises:
      ClaimError: there is nothing to collect.
    """
    if claim in EVALUATED:
        return EVALUATED[claim](lab), None
    failure = None
    if not lab.collect:
        try:
            lab.sweep(claim)
        except ClaimError as error:
            failure = error
    try:
        return collect_sweep(lab.root / claim, lab.runs, lab.cores), failure
    except ClaimError as error:
        raise failure or error from error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of everything that is made; it may be removed")
    names = [*SWEEPS, *EVALUATED]
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, help="claims; image_models and mixes need dropping"
    )
    parser.add_argument("--collect", action="store_true", help="run nothing; collect the claims that have results")
    args, train_words = parser.parse_known_args()
    if unknown := [word for word in train_words if not word.startswith("--config.")]:
        parser.error(f"{unknown[0]}: no such option (--config.FIELD=VALUE is set in every training on videos)")
    root = args.root.absolute()
    os.chdir(ROOT)  # where `python -m harvest_jax` and `python -m launch.sweep` are found
    FOUND.mkdir(parents=True, exist_ok=True)
    failures: dict[str, ClaimError] = {}
    try:
        lab = Lab(root, train_words, args.collect)
    except ClaimError as error:
        parser.error(str(error))
    for claim in args.only:
        try:
            found, failure = find(claim, lab)
        except ClaimError as error:
            failures[claim] = error
            continue
        if failure:
            failures[claim] = failure
        write_atomically(FOUND / f"{claim}.json", (json.dumps(found, indent=1) + "\n").encode())
        print(f"{claim}: {len(found['runs'])} runs in {FOUND / claim}.json", flush=True)
    for claim, error in failures.items():
        print(f"{claim}: {error}", file=sys.stderr, flush=True)
    return 0 if args.collect else next((error.status for error in failures.values()), 0)


if __name__ == "__main__":
    sys.exit(main())
