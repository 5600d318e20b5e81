r"""The text tower frozen, or trained with the video tower.

    python -m launch.sweep --config sweeps/world_text --workdir-root runs/world_text --backend local \
        --config.data.shards=shards/world --config.model.init_from=runs/world_image/export

Shards and image model: configs/world.py and configs/world_image.py.
"""

from collections.abc import Callable

from configs.world import SEEDS, evaluate, get_config

__all__ = ["evaluate", "get_config"]


def sweep(add: Callable[..., None]) -> None:
    """Frozen as in the paper; trained at a tenth of the rate; trained."""
    for rate in (0.0, 0.1, 1.0):
        for seed in SEEDS:
            add(**{"train.lr_multipliers": (("text/.*", rate), (".*", 1.0)), "seed": seed})
