"""The plots of docs/results.md, from the JSON of the claims."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

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
)


def sweep_plot(claim: str, found: Found, axes: Axes) -> None:
    """The groups of factors over the swept field."""
    field, words, logarithmic, _ = SWEPT[claim]
    groups = by_value(found["runs"], field)
    place = [float(rows[0][field]) for rows in groups.values()] if logarithmic else list(range(len(groups)))
    lines(axes, place, [[columns_of(row) for row in rows] for rows in groups.values()])
    if logarithmic:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(place, [value.replace(", ", ",\n") if " " in value else value for value in groups])
    axes.set_xlabel(words)


def lines(axes: Axes, place: Sequence[float], groups: Sequence[Sequence[Mapping[str, float]]]) -> None:
    """Looks, order and binding over the places, with their intervals."""
    for need, marker in zip(NEEDS, "os^", strict=True):
        found = [interval([one[need] for one in each]) for each in groups]
        mean, half = zip(*found, strict=True)
        axes.errorbar(place, mean, np.nan_to_num(half), marker=marker, markersize=4, capsize=3, label=need)
    axes.set_ylabel("right choices, %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def inference_plot(found: Found, axes: Axes) -> None:
    """Order over the share of patches that is looked at, for each training."""
    for trained, shares in inference_rows(found).items():
        place = [float(share.rstrip("%")) for share in shares]
        mean, half = zip(*(interval([one["order"] for one in each]) for each in shares.values()), strict=True)
        axes.errorbar(
            place, mean, np.nan_to_num(half), marker="o", markersize=4, capsize=3, label=f"{trained} in training"
        )
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(place, list(shares))
    axes.set_xlabel("patches looked at")
    axes.set_ylabel("right choices that need order, %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def models_plot(found: Found, axes: Axes) -> None:
    """The law: what the video model gains by what its image model could tell apart."""
    names = list(dict.fromkeys(row["model"] for row in found["runs"]))
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        each = [flat(row["choice"]) for row in found["runs"] if row["model"] == name]
        mean, half = zip(*(interval([one[need] for one in each]) for need in NEEDS), strict=True)
        place = np.arange(len(NEEDS)) + (number - (len(names) - 1) / 2) * width
        axes.bar(place, mean, width, yerr=np.nan_to_num(half), capsize=3, label=name)
    axes.set_xticks(range(len(NEEDS)), list(NEEDS))
    axes.set_ylabel("right choices, %")
    axes.legend(frameon=False)


def mixes_plot(found: Found, axes: Axes) -> None:
    """Clips over alpha."""
    groups = mixed(found)
    lines(axes, list(groups), [[flat(row["choice"]) for row in each] for each in groups.values()])
    axes.set_xlabel("alpha: 0 is the image model over 8 frames, without a table of frames; 1 the video model")
