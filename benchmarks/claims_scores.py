"""The scores of the claims' runs as the page of results shows them: groups of factors, means over seeds, intervals."""

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scipy.stats import t as student_t

from harvest_jax.synthetic.choices import FACTORS

# What the factors of a group need, in the words of the page.
NEEDS = {
    "looks": [name for name, factor in FACTORS.items() if factor.needs == "still"],
    "order": [name for name, factor in FACTORS.items() if factor.needs == "order"],
    "binding": [name for name, factor in FACTORS.items() if "binding" in factor.needs],
}
# claim -> (field of its sweep, its words in the table, whether the plot's axis is logarithmic, the value that others
# are compared with: the method's own setting, or the most clips)
SWEPT = {
    "dropping": ("model.keep_ratio", "patches kept", True, "10%"),
    "dropping_arithmetic": ("model.keep_ratio", "patches kept", True, "10%"),
    "masking": ("text.mask_ratio", "words masked", False, "15%"),
    "text": ("train.lr_multipliers", "text tower", False, "frozen"),
    "scope": ("model.drop_scope", "patches drawn", False, "clip"),
    "unmasked": ("train.unmasked_learning_rate", "last stage", False, "none"),
    "data": ("data.split", "clips", False, "100,000"),
}
_CLIPS = {"train_1k": "1,000", "train_10k": "10,000", "train_100k": "100,000"}
Row = Mapping[str, Any]
Found = Mapping[str, Any]  # the JSON of a claim: training, machine, runs


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and the half-width of its 95 % interval; nan for a single value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, float("nan")
    spread = statistics.stdev(values) / len(values) ** 0.5
    return mean, float(student_t.ppf(0.975, len(values) - 1)) * spread


def paired(values: Mapping[int, float], reference: Mapping[int, float]) -> list[float]:
    """What each seed has more than the reference with the same seed; seeds that are not in both are left out."""
    return [value - reference[seed] for seed, value in values.items() if seed in reference]


def order_by_seed(rows: Iterable[Row]) -> dict[int, float]:
    """The mean of the factors that need order, of each run of a sweep."""
    return {row["seed"]: group_mean(row, NEEDS["order"]) for row in rows}


def group_mean(row: Row, names: Iterable[str], prefix: str = "choice type ") -> float:
    """The mean score of some factors, which have equally many clips each."""
    return statistics.fmean(row[f"{prefix}{name}"] for name in names)


def columns_of(row: Row) -> dict[str, float]:
    """The columns of a run in a table."""
    found = {need: group_mean(row, names) for need, names in NEEDS.items()}
    more = {"choice accuracy": "all choices", "retrieval t2v R@1": "R@1", "questions accuracy": "answers"}
    more |= {"stills t2v R@1": "pictures R@1", "step_ms": "ms a step"}
    return found | {words: float(row[name]) for name, words in more.items() if name in row}


def by_value(rows: Sequence[Row], field: str) -> dict[str, list[Row]]:
    """The runs of each value of the swept field, in their order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(value_words(field, row), []).append(row)
    return found


def value_words(field: str, row: Row) -> str:
    """A value of the swept field as the table names it."""
    value = row.get(field, "none")
    if field == "train.lr_multipliers":
        rate = float(re.findall(r"'text/\.\*', ([\d.]+)", str(value))[0])
        return {0.0: "frozen", 1.0: "trained"}.get(rate, f"trained at {rate:g} of the rate")
    if field == "train.unmasked_learning_rate":
        return "none" if value == "none" else f"rate {value:g}"
    if row.get("text.contrastive") == "clean":
        return f"{value:.0%}, whole captions contrasted"
    return f"{value:.0%}" if isinstance(value, float) else _CLIPS.get(str(value), str(value))


def inference_rows(found: Found) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Trained share -> share looked at -> the groups of each seed, and the seed."""
    tables: dict[str, dict[str, list[dict[str, float]]]] = {}
    for row in found["runs"]:
        names = dict.fromkeys(name.split()[0] for name in row if name.startswith("choice_"))
        for name in names:
            groups = {need: group_mean(row, of, f"{name} type ") for need, of in NEEDS.items()} | {"seed": row["seed"]}
            of_run = tables.setdefault(f"{row['model.keep_ratio']:.0%}", {})
            of_run.setdefault(f"{name.removeprefix('choice_')}%", []).append(groups)
    return tables


def flat(scores: Mapping[str, Any]) -> dict[str, float]:
    """The groups of a result of choices."""
    return {need: group_mean(scores, names, "type ") for need, names in NEEDS.items()}


def mixed(found: Found) -> dict[float, list[Row]]:
    """The rows of each alpha."""
    groups: dict[float, list[Row]] = {}
    for row in found["runs"]:
        groups.setdefault(row["alpha"], []).append(row)
    return groups
