r"""Which patches are kept: anywhere in the clip, equally many of each frame, tubes, or where frames differ.

    python -m launch.sweep --config sweeps/world_scope --workdir-root runs/world_scope --backend local \
        --config.data.shards=shards/world --config.model.init_from=runs/world_image/export

Shards and image model: configs/world.py and configs/world_image.py.
"""

from collections.abc import Callable

from configs.world import SEEDS, evaluate, get_config

__all__ = ["evaluate", "get_config"]


def sweep(add: Callable[..., None]) -> None:
    """Four ways, a tenth of the patches each."""
    for scope in ("clip", "frame", "tube", "motion"):
        for seed in SEEDS:
            add(**{"model.drop_scope": scope, "seed": seed})
