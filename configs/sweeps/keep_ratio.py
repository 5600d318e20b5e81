r"""How much of the video can be dropped: one config at five keep ratios, everything else equal.

    harvest demo --workdir runs/demo                      # writes the shards
    python -m launch.sweep --config sweeps/keep_ratio --workdir-root runs/keep --backend local \
        --config.data.shards=runs/demo/shards --config.model.init_from=harvest_jax/demo/data/image_clip

The argument after a colon names the config that is swept, `demo` without one: `sweeps/keep_ratio:harvest_b16`.
Hardware: as that config's.
Expect: the arithmetic of the video tower falls a little faster than the share of patches kept, because attention grows
with the square of the tokens; the text tower costs the same at every ratio. Time may fall less or more than arithmetic,
depending on the machine; `metrics.jsonl` of each run has the clips/s.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from harvest_jax.config import load_dict


def get_config(swept: str = "demo") -> ConfigDict:
    """The packaged config `swept`, unchanged."""
    return load_dict(swept)


def sweep(add: Callable[..., None]) -> None:
    """Five shares of patches, from all to a twentieth."""
    for keep_ratio in (1.0, 0.5, 0.25, 0.1, 0.05):
        add(**{"model.keep_ratio": keep_ratio})


def sweep_scope(add: Callable[..., None]) -> None:
    """The four ways to choose which patches are kept, at a keep ratio of 0.1."""
    for scope in ("clip", "frame", "tube", "motion"):
        add(**{"model.drop_scope": scope, "model.keep_ratio": 0.1})
