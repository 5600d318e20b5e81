"""What a task returns, and the result of an evaluation as a JSON object with a table of its queries beside it."""

import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from harvest_jax.errors import ConfigError
from harvest_jax.evaluate.result.protocol import digest
from harvest_jax.evaluate.result.queries import Queries
from harvest_jax.files import write_atomically

FORMAT = 2  # of the JSON object; versions up to 0.1.0 wrote none


@dataclasses.dataclass(frozen=True)
class TextFacts:
    """How many texts the model read, how many tokens it takes of one, and how many texts were longer and were cut."""

    n: int
    length: int
    cut: int


@dataclasses.dataclass(frozen=True)
class TaskOutput:
    """What a task returns.

    Attributes:
      protocol: the task's own choices that decide its numbers.
      content: JSON values, one for each clip or row, of all that decides about it: which clip it is
        (`VideoSpan.key`), its texts, its answer. Their order does not matter.
      missing: for each item that is scored (a video, a labelled row, a question): its video could not be read, so it
        counts as wrong.
      reasons: why, by clip number.
      metrics: the scores.
      queries: the ranks that the scores come from.
      texts: of what the model read.
      files: what the task read besides the set, by purpose: "classes", "answers".
      data_ties: points by which ties that the data bring (equal texts, candidates that cannot be told apart) can open a
        score; more are a fault. None: a tie is an answer like others, of which nothing is said.
    """

    protocol: dict[str, Any]
    content: Sequence[Any]
    missing: Bool[np.ndarray, " items"]
    reasons: dict[int, str]
    metrics: dict[str, Any]
    queries: Sequence[Queries]
    texts: TextFacts
    files: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    data_ties: float | None = 0.0


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """One result.

    Attributes:
      task: name of the task.
      protocol: every choice that decides the numbers, except the model; results with equal `protocol_hash` can be
        compared.
      model: `provenance.model_facts`.
      data: name, kind and split of the set.
      inputs: `provenance.file_facts` of the files that were read, and the frames: "distinct_frames" of a clip.
      texts: see `TextFacts`.
      n_expected: items (videos of the gallery, labelled rows, questions) that the evaluation set has.
      n_missing: items that count as wrong because their video could not be read.
      missing: {"video", "reason"} of each video that could not be read.
      metrics: the scores.
      faults: what makes the score unfit for a comparison: missing videos, open ties. `strict` refuses them.
      notes: what else a reader of the numbers must know.
      run: `provenance.run_facts`.
      queries: the ranks, written to a file of their own.
    """

    task: str
    protocol: dict[str, Any]
    model: dict[str, Any]
    data: dict[str, Any]
    inputs: dict[str, Any]
    texts: TextFacts
    n_expected: int
    n_missing: int
    missing: list[dict[str, str]]
    metrics: dict[str, Any]
    faults: list[str]
    notes: list[str]
    run: dict[str, Any]
    queries: Sequence[Queries]

    @property
    def protocol_hash(self) -> str:
        """sha256 (hex) of the protocol."""
        return digest(self.protocol)

    @property
    def warnings(self) -> list[str]:
        """Faults and notes."""
        return [*self.faults, *self.notes]

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        return {
            "format": FORMAT,
            "task": self.task,
            "protocol": self.protocol,
            "protocol_hash": self.protocol_hash,
            "model": self.model,
            "data": self.data,
            "n_expected": self.n_expected,
            "n_missing": self.n_missing,
            "missing": self.missing,
            "metrics": self.metrics,
            "warnings": self.warnings,
            "texts": dataclasses.asdict(self.texts),
            "inputs": self.inputs,
            "run": self.run,
        }

    def write(self, path: Path) -> None:
        """Write the JSON object, indented, after the table of the queries (`queries_path`).

        Each file is replaced as a whole or not at all. The JSON object has the table's name and SHA-256, so that the
        two cannot be mixed up.

        Raises:
          OSError: no such folder, no permission, disk full; an older file is left as it was.
        """
        content = self.to_dict()
        json.dumps(content, allow_nan=False)  # a fault is found before the first file is replaced
        table = queries_path(path)
        content["queries"] = {"name": table.name, "sha256": Queries.write(self.queries, table)}
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # A file name that is not UTF-8 becomes "\udce9", as JSON spells it.
        write_atomically(path, text.encode("utf-8", "backslashreplace"))


def check_writable(out: Path) -> None:
    """Make the folder of a result's file, and try to write there.

    Raises:
      ConfigError: the file cannot be written.
    """
    _check_file(out)
    _check_file(queries_path(out))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written: {error.strerror}") from error


def _check_file(path: Path) -> None:
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise ConfigError(f"--out {path} is {kind}: name another file for the result")


def queries_path(path: Path) -> Path:
    """The table of the queries beside a result: r.json -> r.json.queries.parquet."""
    return path.with_name(f"{path.name}.queries.parquet")


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
