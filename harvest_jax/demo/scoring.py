"""The demo's two scores, computed as `harvest eval` does."""

from pathlib import Path
from typing import Any

from harvest_jax.config import files as config_files
from harvest_jax.evaluate import evaluation
from harvest_jax.evaluate.clips.evaluation_set import open_set
from harvest_jax.terminal import progress

SHOWN = ("R@1", "R@5", "R@10", "MedR", "MnR")


def evaluate(task: str, model: Any, shards: Path, split: str) -> dict[str, Any]:
    """The scores of `configs/eval/TASK.py` on a split of the demo's shards."""
    config = config_files.load_dict(str(config_files.config_file(f"eval/{task}.py")))
    config.data.shards, config.data.split = str(shards), split
    settings = evaluation.check(config)
    with progress(task, "clips") as update:
        return evaluation.evaluate(settings, model, open_set(settings.data), update).metrics


def score(model: Any, shards: Path) -> dict[str, Any]:
    """Retrieval over 40 clips of unseen combinations, and the choice between each motion and its reverse.

    Returns:
      {"retrieval": {"t2v", "v2t"}: {"R@1", ...}}, {"motion_choice": {"accuracy", "chance", "n", "per_type"}}; shares in
      percent.
    """
    retrieval = evaluate("retrieval", model, shards, "retrieval")
    choice = evaluate("multiple_choice", model, shards, "choice")
    return {
        "retrieval": {direction: {name: retrieval[direction][name] for name in SHOWN} for direction in ("t2v", "v2t")},
        "motion_choice": {name: choice[name] for name in ("accuracy", "chance", "n", "per_type")},
    }
