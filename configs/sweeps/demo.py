r"""Three ablations on the demo's clips, with three seeds each: patches kept, the way to choose them, words masked.

    harvest demo --workdir runs/demo                      # writes the shards
    for ablation in keep_ratio drop_scope mask_ratio; do
        python -m launch.sweep --config sweeps/demo --sweep $ablation --backend local \
            --workdir-root runs/ablations --results runs/ablations/$ablation \
            --config.data.shards=runs/demo/shards --config.model.init_from=harvest_jax/demo/data/image_clip
    done

Hardware: 2 CPU cores. The runs share a folder, so that the demo's own setting is trained once.
Expect: docs/demo.md has the tables. A run has a third of the demo's steps, at which its scores are not full yet.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from configs import demo

SEEDS = (0, 1, 2)  # of the training: the clips are those of the demo's folder


def get_config() -> ConfigDict:
    """The demo's config with 400 steps."""
    config = demo.get_config()
    config.train.steps = 400
    return config


def sweep_keep_ratio(add: Callable[..., None]) -> None:
    """A quarter of the patches, a tenth, a twentieth."""
    _with_seeds(add, "model.keep_ratio", (0.25, 0.1, 0.05))


def sweep_drop_scope(add: Callable[..., None]) -> None:
    """The four ways to choose the tenth that is kept."""
    _with_seeds(add, "model.drop_scope", ("clip", "frame", "tube", "motion"))


def sweep_mask_ratio(add: Callable[..., None]) -> None:
    """The share of masked words; without any there is no second loss."""
    for ratio in (0.0, 0.15, 0.5):
        for seed in SEEDS:
            add(**{"text.mask_ratio": ratio, "train.mlm_weight": float(ratio > 0), "seed": seed})


def evaluate(add: Callable[..., None]) -> None:
    """The demo's two evaluations, on combinations that no training caption has."""
    add("choice", "eval/multiple_choice", **{"data.split": "choice"})
    add("retrieval", "eval/retrieval", **{"data.split": "retrieval"})


def _with_seeds(add: Callable[..., None], field: str, values: tuple[float | str, ...]) -> None:
    for value in values:
        for seed in SEEDS:
            add(**{field: value, "seed": seed})
