r"""Masked words: what share of the caption's words is hidden, and whether it helps more than answering.

    python -m launch.sweep --config sweeps/world_masking --workdir-root runs/world_masking --backend local \
        --config.data.shards=shards/world --config.model.init_from=runs/world_image/export

Shards and image model: configs/world.py and configs/world_image.py.
"""

from collections.abc import Callable

from configs.world import SEEDS, evaluate, get_config

__all__ = ["evaluate", "get_config"]


def sweep(add: Callable[..., None]) -> None:
    """Four shares; without masked words there is no second loss.

    The contrastive loss sees the masked caption, too. For two shares a second arm gives it the whole caption, so that
    what the masked words teach is told apart from what the contrastive loss loses by them.
    """
    for mask_ratio in (0.0, 0.15, 0.3, 0.5):
        for seed in SEEDS:
            add(**{"text.mask_ratio": mask_ratio, "train.mlm_weight": float(mask_ratio > 0), "seed": seed})
    for mask_ratio in (0.15, 0.5):
        for seed in SEEDS:
            add(**{"text.mask_ratio": mask_ratio, "text.contrastive": "clean", "train.mlm_weight": 1.0, "seed": seed})
