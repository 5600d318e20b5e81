r"""How much of the video can be dropped: one config at five keep ratios, the rest equal.

    harvest demo --workdir runs/demo                      # writes the shards
    python -m launch.sweep --config configs/sweeps/keep_ratio.py --workdir-root runs/keep --backend local \
        --config.data.shards=runs/demo/shards

Hardware: as the config that is swept (the argument after the colon: `keep_ratio.py:harvest_b16`; the demo's without).
Expect: the cost of a step falls about in proportion to what is kept; `metrics.jsonl` of each run says both.
"""

from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from harvest_jax.config import load_dict


def get_config(swept: str = "demo") -> ConfigDict:
    """The config `configs/<swept>.py`, unchanged."""
    return load_dict(str(Path(__file__).parents[1] / f"{swept}.py"))


def sweep(add: Callable[..., None]) -> None:
    """From all patches to a twentieth."""
    for keep_ratio in (1.0, 0.5, 0.25, 0.1, 0.05):
        add(**{"model.keep_ratio": keep_ratio})


def sweep_scope(add: Callable[..., None]) -> None:
    """What is kept, chosen four ways at the default."""
    for scope in ("clip", "frame", "tube", "motion"):
        add(**{"model.drop_scope": scope, "model.keep_ratio": 0.1})
