"""The demo's results: those of `harvest eval` for two splits of its shards, as files for `harvest results`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harvest_jax.config import files as config_files
from harvest_jax.evaluate import evaluation
from harvest_jax.evaluate.clips.embeddings import VideoTextModel
from harvest_jax.evaluate.clips.evaluation_set import open_set
from harvest_jax.evaluate.report.grids import number
from harvest_jax.evaluate.report.query_scores import METRICS
from harvest_jax.evaluate.report.result_files import ResultFile, read_result
from harvest_jax.evaluate.result.results import check_writable
from harvest_jax.terminal import progress

SPLITS = {"retrieval": "retrieval", "multiple_choice": "choice"}  # task -> the split that it is evaluated on
_REPEATED = ("R@1", "R@5", "R@10", "MedR", "MnR")


def score(
    model: VideoTextModel, shards: Path, folder: Path, name: str, command: Sequence[str] = ()
) -> dict[str, ResultFile]:
    """Retrieval over 40 clips of unseen combinations, and the choice between each motion and its reverse.

    As `harvest eval --config eval/TASK --config.data.shards=SHARDS --config.data.split=SPLIT` does it. The average of
    the video model's own frames (`frame_average`) is left out, because it needs nine times as many embeddings.

    Args:
      model: to evaluate.
      shards: of the demo.
      folder: for the results; made if missing.
      name: of the model, the first part of the files' names.
      command: the words of the command line, for the results.

    Returns:
      task -> its result, read back from its file.
    """
    results = {}
    for task, split in SPLITS.items():
        path = folder / f"{name}_{split}.json"
        check_writable(path)
        config = config_files.load_dict(str(config_files.config_file(f"eval/{task}.py")))
        config.data.shards, config.data.split = str(shards), split
        settings = evaluation.check(config)
        with progress(split, "clips") as update:
            evaluation.evaluate(settings, model, open_set(settings.data), update, command).write(path)
        results[task] = read_result(path)
    return results


def figures(results: Mapping[str, ResultFile]) -> dict[str, Any]:
    """The scores that report.json repeats, for programs that read it.

    Returns:
      {"retrieval": {"t2v", "v2t"}: {"R@1", ...}}, {"motion_choice": {"accuracy", "chance", "n", "per_type"}}; shares in
      percent.
    """
    retrieval, choice = (results[task].content["metrics"] for task in SPLITS)
    return {
        "retrieval": {way: {name: retrieval[way][name] for name in _REPEATED} for way in ("t2v", "v2t")},
        "motion_choice": {name: choice[name] for name in ("accuracy", "chance", "n", "per_type")},
    }


def headline(result: ResultFile) -> str:
    """The task's first score, as `harvest results` shows it."""
    metric = METRICS[result.task][0]
    value = result.number(metric.path)
    return "" if value is None else number(value, metric)
