"""The tables of docs/results.md, from the JSON of the claims."""

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.claims_scores import (
    NEEDS,
    SWEPT,
    Found,
    by_value,
    columns_of,
    flat,
    inference_rows,
    interval,
    mixed,
    order_by_seed,
    paired,
)
from harvest_jax.config.run import load
from harvest_jax.synthetic.choices import FACTORS
from harvest_jax.train.flops import step_flops
from harvest_jax.train.model_of_run import model_config

DIFFICULTY = Path(__file__).resolve().parent / "results/world_difficulty.json"


def cell(values: Sequence[float]) -> str:
    """`mean ± half-width`."""
    if not values:
        return ""
    mean, half = interval(values)
    return f"{mean:.1f}" if np.isnan(half) else f"{mean:.1f} ± {half:.1f}"


def difference(values: Sequence[float]) -> str:
    """The same with a sign."""
    text = cell(values)
    return text if not text or text.startswith("-") else f"+{text}"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [list(head), ["---"] * len(head), *map(list, lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def sweep_table(claim: str, found: Found) -> str:
    """One line for each value of the swept field; the last column is paired by seed with the value compared with."""
    field, words, _, reference = SWEPT[claim]
    groups = by_value(found["runs"], field)
    each = {value: [columns_of(row) for row in rows] for value, rows in groups.items()}
    head = list(dict.fromkeys(name for columns in each.values() for row in columns for name in row))
    compared = order_by_seed(groups.get(reference, []))
    lines = []
    for value, rows in groups.items():
        steps = [str(rows[0]["train.steps"])] if claim == "dropping_arithmetic" else []
        cells = [cell([row[name] for row in each[value] if name in row]) for name in head]
        more = "" if value == reference else difference(paired(order_by_seed(rows), compared))
        lines.append([value, *steps, *cells, more])
    steps = ["steps"] if claim == "dropping_arithmetic" else []
    return table([words, *steps, *head, f"order, against {reference}"], lines) + "\n\n" + facts(found)


def answers_table(found: Found) -> str:
    """The decoder's words by kind of question, beside the best that can be said without looking."""
    known = json.loads(DIFFICULTY.read_text("utf-8"))["answers"]
    lines = [["commonest answer", *(f"{known[kind]['commonest']:.1f}" for kind in known)]]
    for value, rows in by_value(found["runs"], SWEPT["masking"][0]).items():
        columns = [f"questions type {kind}" for kind in known]
        lines.append([value, *(cell([row[name] for row in rows if name in row]) for name in columns)])
    return table([SWEPT["masking"][1], *known], lines)


def facts(found: Found) -> str:
    """How many seeds, how long, on what."""
    machine, rows = found["machine"], found["runs"]
    seeds = len({row["seed"] for row in rows if "seed" in row})
    training = found.get("training")
    words = [f"{seeds} seeds"]
    if training and not any("train.steps" in row for row in rows):
        words.append(f"{training['steps']:,} steps of {training['batch_size']} clips")
    if training:
        total = [row["step_ms"] * row.get("train.steps", training["steps"]) / 3.6e6 for row in rows if "step_ms" in row]
        words.append(f"about {sum(total):.1f} hours of training steps")
    words.append(f"{machine['cores']} cores ({machine['device']}), jax {machine['jax']}")
    if without := found.get("without_scores"):
        words.append(f"without scores: {', '.join(without)}")
    return f"*{', '.join(words)}.*"


def flops_note(_: Found) -> str:
    """The arithmetic of a step by the share of patches kept, against all patches."""
    costs = {}
    for ratio in (1.0, 0.5, 0.3, 0.1, 0.05):
        run = load("world", ["data.shards=shards", "model.init_from=model", f"model.keep_ratio={ratio}"])
        costs[ratio] = step_flops(run, model_config(run))["total"]
    words = [f"{ratio:.0%}: {cost / costs[1.0]:.0%}" for ratio, cost in costs.items()]
    return "Arithmetic of a step against that with all patches: " + ", ".join(words) + "."


def inference_table(found: Found) -> str:
    """What a model gets right with a share of the patches; the last column is paired by seed with all patches."""
    lines = []
    for trained, shares in inference_rows(found).items():
        orders = {looked: {int(one["seed"]): one["order"] for one in each} for looked, each in shares.items()}
        for looked, each in shares.items():
            more = "" if looked == "100%" else difference(paired(orders[looked], orders.get("100%", {})))
            lines.append([trained, looked, *(cell([one[need] for one in each]) for need in NEEDS), more])
    return table(["trained with", "asked with", *NEEDS, "order, against 100%"], lines) + "\n\n" + facts(found)


def models_table(found: Found) -> str:
    """The image models and the video models, whole clips and averaged frames."""
    known = json.loads(DIFFICULTY.read_text("utf-8"))["factors"]
    lines = []
    for name, key in (("chance", "chance"), ("a reader without order", "order_blind")):
        means = [statistics.fmean(known[factor][key] for factor in factors) for factors in NEEDS.values()]
        lines.append([name, *(f"{mean:.1f}" for mean in means), "", ""])
    for name in dict.fromkeys(row["model"] for row in found["runs"]):
        rows = [row for row in found["runs"] if row["model"] == name]
        whole = [flat(row["choice"]) for row in rows]
        cells = [cell([one[need] for one in whole]) for need in NEEDS]
        stills = cell([row["stills"]["R@1"] for row in rows])
        if not name.startswith("video model") or "frame_average" not in rows[0]["choice"]:
            lines.append([name, *cells, stills, ""])  # an image model always averages
            continue
        average = [flat(row["choice"]["frame_average"]) for row in rows]
        gained = [one["order"] - mean["order"] for one, mean in zip(whole, average, strict=True)]
        lines.append([name, *cells, stills, difference(gained)])
        averaged = [cell([one[need] for one in average]) for need in NEEDS]
        lines.append([f"{name}, frames averaged", *averaged, "", ""])
    head = ["model", *NEEDS, "pictures R@1", "order, against its averaged frames"]
    return table(head, lines) + "\n\n" + facts(found)


def factors_table(found: Found) -> str:
    """Factor by factor: chance, a reader without order, the image model, the video model and its averaged frames."""
    difficulty = json.loads(DIFFICULTY.read_text("utf-8"))["factors"]
    image = next(row["choice"] for row in found["runs"] if row["model"] == "image model, marks")
    video = [row["choice"] for row in found["runs"] if row["model"] == "video model"]
    lines = []
    for factor in FACTORS:
        known = difficulty[factor]
        cells = [f"{known['chance']:.1f}", f"{known['order_blind']:.1f}", f"{image[f'type {factor}']:.1f}"]
        cells.append(cell([one["frame_average"][f"type {factor}"] for one in video]))
        lines.append([factor, *cells, cell([one[f"type {factor}"] for one in video])])
    return table(
        ["factor", "chance", "without order", "image model", "video model, frames averaged", "video model"], lines
    )


def mixes_table(found: Found) -> str:
    """One line for each alpha; the last column is paired by seed with the video model, alpha 1."""
    rows, groups = [], mixed(found)
    orders = {alpha: {row["seed"]: flat(row["choice"])["order"] for row in each} for alpha, each in groups.items()}
    for alpha, each in groups.items():
        needs = [flat(row["choice"]) for row in each]
        stills = cell([row["stills"]["R@1"] for row in each])
        more = "" if alpha == 1 else difference(paired(orders[alpha], orders.get(1.0, {})))
        rows.append([f"{alpha:g}", *(cell([one[need] for one in needs]) for need in NEEDS), stills, more])
    return table(["alpha", *NEEDS, "pictures R@1", "order, against 1"], rows) + "\n\n" + facts(found)
