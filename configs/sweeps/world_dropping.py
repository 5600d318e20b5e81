r"""Quality against cost: how much of the video is dropped, at equal steps and at equal arithmetic.

    python -m launch.sweep --config sweeps/world_dropping --workdir-root runs/world_dropping --backend local \
        --config.data.shards=shards/world --config.model.init_from=runs/world_image/export

Shards and image model: configs/world.py and configs/world_image.py.
`--sweep arithmetic` gives every ratio the arithmetic of the tenth's steps.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from configs.world import SEEDS, evaluate, get_config
from harvest_jax.config import check
from harvest_jax.model.config import harvest_config
from harvest_jax.train.flops import step_flops

__all__ = ["evaluate", "get_config"]


KEPT = (1.0, 0.5, 0.3, 0.1, 0.05)


def sweep(add: Callable[..., None]) -> None:
    """Equal steps."""
    for keep_ratio in KEPT:
        for seed in SEEDS:
            add(**{"model.keep_ratio": keep_ratio, "seed": seed})


def sweep_arithmetic(add: Callable[..., None], config: ConfigDict) -> None:
    """As many steps as the arithmetic of the tenth's allows: all patches get few of them."""
    budget = flops(config, 0.1) * config.train.steps
    for keep_ratio in KEPT:
        steps = max(10, round(budget / flops(config, keep_ratio)))
        for seed in SEEDS:
            warmup = min(config.train.warmup_steps, steps // 4)
            values = {"model.keep_ratio": keep_ratio, "train.steps": steps, "train.warmup_steps": warmup}
            add(**values, seed=seed)


def flops(config: ConfigDict, keep_ratio: float) -> float:
    """Of one clip's share of a step of this config with another share of the patches."""
    config = config.copy_and_resolve_references()
    config.model.keep_ratio = keep_ratio
    run = check(config)
    return step_flops(run, harvest_config(run.model.size, run.model.num_frames, run.model.decoder_layers))["total"]
