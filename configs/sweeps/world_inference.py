r"""Patches dropped when the model is used: the same models, asked with fewer and fewer patches.

    python -m launch.sweep --config sweeps/world_inference --workdir-root runs/world_inference --backend local \
        --config.data.shards=shards/world --config.model.init_from=runs/world_image/export

Shards and image model: configs/world.py and configs/world_image.py.
"""

from collections.abc import Callable

from configs.world import SEEDS, get_config

__all__ = ["get_config"]


def sweep(add: Callable[..., None]) -> None:
    """The model that was trained with a tenth of the patches, and one that was trained with all of them."""
    for keep_ratio in (0.1, 1.0):
        for seed in SEEDS:
            add(**{"model.keep_ratio": keep_ratio, "seed": seed})


def evaluate(add: Callable[..., None]) -> None:
    """The choices, with a share of the patches of each clip."""
    for percent in (100, 50, 25, 10, 5):
        add(f"choice_{percent}", "eval/multiple_choice", **{"data.split": "choice", "keep_ratio": percent / 100})
