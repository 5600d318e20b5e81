"""The scores of checkpoints: which step has which, and which is the best; kept beside each checkpoint.

`checkpoints/STEP/SCORES.json` is written after the checkpoint is complete, and deleted with it. Nothing here imports
JAX.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from harvest_jax.checkpoint.digests import DamagedError, unreadable
from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.files import write_atomically

SCORES = "SCORES.json"


@dataclasses.dataclass(frozen=True)
class StepScores:
    """The scores of one step.

    Attributes:
      values: score by name, such as "retrieval/t2v/R@1".
      protocols: protocol hash by name of the evaluation, such as "retrieval": equal ones can be compared.
      metric: name of the score that decides which step is the best; "": none does.
      lower_is_better: of that score.
    """

    values: dict[str, float]
    protocols: dict[str, str]
    metric: str = ""
    lower_is_better: bool = False


def write_scores(workdir: Workdir, step: int, scores: StepScores) -> None:
    """Keep the scores of a complete checkpoint.

    Raises:
      OSError: they could not be written.
    """
    text = json.dumps(dataclasses.asdict(scores), indent=2)
    write_atomically(workdir.step(step) / SCORES, text.encode() + b"\n")


def read_scores(workdir: Workdir, step: int) -> StepScores | None:
    """The scores of a step, or None if it has none, or damaged ones.

    Raises:
      CheckpointError: the disk does not answer.
    """
    return _read(workdir.step(step) / SCORES)


def best_step(workdir: Workdir) -> tuple[int, float, str] | None:
    """The complete checkpoint with the best score, that score and its name; the earliest of equal ones, None without.

    The newest scores say which score decides; steps that were scored under another protocol do not take part.
    """
    scored = [(step, read_scores(workdir, step)) for step in workdir.complete_steps()]
    found = [(step, scores) for step, scores in scored if scores is not None]
    if not found:
        return None
    newest = found[-1][1]
    sign = -1 if newest.lower_is_better else 1
    values = {
        step: scores.values[newest.metric]
        for step, scores in found
        if scores.protocols == newest.protocols and math.isfinite(scores.values.get(newest.metric, math.nan))
    }
    best = max(values, key=lambda step: (sign * values[step], -step), default=None)
    return None if best is None else (best, values[best], newest.metric)


def _read(path: Path) -> StepScores | None:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        return StepScores(
            {str(name): float(value) for name, value in found["values"].items()},
            {str(name): str(value) for name, value in found["protocols"].items()},
            str(found["metric"]),
            bool(found["lower_is_better"]),
        )
    except OSError as error:
        failure = unreadable(path, error)
        if isinstance(failure, DamagedError):
            return None
        raise failure from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
