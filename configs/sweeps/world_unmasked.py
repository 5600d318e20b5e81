r"""The last stage, in which nothing is dropped: with and without.

    python -m launch.sweep --config sweeps/world_unmasked --workdir-root runs/world_unmasked --backend local \
        --config.data.shards=shards/world --config.model.init_from=runs/world_image/export

Shards and image model: configs/world.py and configs/world_image.py.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from configs.world import SEEDS, evaluate, get_config

__all__ = ["evaluate", "get_config"]


def sweep(add: Callable[..., None], config: ConfigDict) -> None:
    """None; a twentieth of the steps at the paper's low rate, and at a rate at which the model moves."""
    steps = max(1, config.train.steps // 20)
    for seed in SEEDS:
        add(**{"train.unmasked_steps": 0, "seed": seed})
        for rate in (1e-7, 2e-4):
            add(**{"train.unmasked_steps": steps, "train.unmasked_learning_rate": rate, "seed": seed})
