"""What a task returns, and the result of an evaluation as a JSON object."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from harvest_jax.evaluate.protocol import digest
from harvest_jax.files import write_atomically
from harvest_jax.version import __version__


@dataclasses.dataclass(frozen=True)
class TaskOutput:
    """What a task returns.

    Attributes:
      protocol: the task's own choices that decide its numbers.
      missing: for each item that is scored (a video, a labelled row, a question): its video could not be read, so it
        counts as wrong.
      reasons: why, by clip number.
      metrics: the scores.
    """

    protocol: dict[str, Any]
    missing: Bool[np.ndarray, " items"]
    reasons: dict[int, str]
    metrics: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """One result.

    Attributes:
      task: name of the task.
      protocol: every choice that decides the numbers; results with equal `protocol_hash` can be compared.
      n_expected: items (videos of the gallery, labelled rows, questions) that the evaluation set has.
      n_missing: items that count as wrong because their video could not be read.
      missing: {"video", "reason"} of each video that could not be read.
      metrics: the scores.
      warnings: what a reader of the numbers must know.
      model: the model's name.
      seed: the config's.
    """

    task: str
    protocol: dict[str, Any]
    n_expected: int
    n_missing: int
    missing: list[dict[str, str]]
    metrics: dict[str, Any]
    warnings: list[str]
    model: str
    seed: int

    @property
    def protocol_hash(self) -> str:
        """sha256 (hex) of the protocol."""
        return digest(self.protocol)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        return {
            "task": self.task,
            "protocol": self.protocol,
            "protocol_hash": self.protocol_hash,
            "n_expected": self.n_expected,
            "n_missing": self.n_missing,
            "missing": self.missing,
            "metrics": self.metrics,
            "warnings": self.warnings,
            "model": self.model,
            "seed": self.seed,
            "version": __version__,
        }

    def write(self, path: Path) -> None:
        """Write the JSON object, indented. The file is replaced as a whole or not at all.

        Raises:
          OSError: no such folder, no permission, disk full; an older file is left as it was.
        """
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # A file name that is not UTF-8 becomes "\udce9", as JSON spells it.
        write_atomically(path, text.encode("utf-8", "backslashreplace"))


def tie_spread(metrics: dict[str, Any]) -> float:
    """Largest difference in points of any percentage between `optimistic` and `pessimistic`, at any depth."""
    widest = 0.0
    if "optimistic" in metrics:
        best, worst = metrics["optimistic"], metrics["pessimistic"]
        widest = max(abs(best[name] - worst[name]) for name in best if name not in ("MedR", "MnR"))
    return max([widest, *(tie_spread(value) for value in metrics.values() if isinstance(value, dict))])


def mean_by_type(types: Sequence[str], score: Float[np.ndarray, " items"], name: str) -> dict[str, dict[str, Any]]:
    """{type: {"n", `name`: mean score of its items}} in alphabetical order."""
    of = np.array(types)
    return {str(one): {"n": int(np.sum(of == one)), name: float(score[of == one].mean())} for one in sorted(set(types))}
