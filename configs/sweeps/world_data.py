r"""How many clips: a thousand to a hundred thousand, at equal steps.

    python -m launch.sweep --config sweeps/world_data --workdir-root runs/world_data --backend local \
        --config.data.shards=shards/world --config.model.init_from=runs/world_image/export

Shards and image model: configs/world.py and configs/world_image.py.
Its world has splits of these names: harvest world --clips train_1k=1000 train_10k=10000 train_100k=100000 ...
"""

from collections.abc import Callable

from configs.world import SEEDS, evaluate, get_config

__all__ = ["evaluate", "get_config"]


def sweep(add: Callable[..., None]) -> None:
    """Splits of three sizes; the clips of the smaller ones come more often."""
    for split in ("train_1k", "train_10k", "train_100k"):
        for seed in SEEDS:
            add(**{"data.split": split, "seed": seed})
