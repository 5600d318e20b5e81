"""The JSON object that every evaluation ends in."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harvest_jax.version import __version__


def digest(value: Any) -> str:
    """sha256 (hex) of the value's canonical JSON: sorted keys, no blanks, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def result(
    task: str,
    protocol: Mapping[str, Any],
    n_expected: int,
    missing: Sequence[Mapping[str, str]],
    n_missing: int,
    metrics: Mapping[str, Any],
    model: str,
    seed: int,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """One result.

    Args:
      task: name of the evaluation.
      protocol: every choice that moves the number; two results are comparable if their `protocol_hash` is equal.
      n_expected: items (videos of the gallery, labelled videos, questions) that the data set has.
      missing: {"video", "reason"} of each video that could not be read.
      n_missing: items counted as wrong because of those.
      metrics: the scores.
      model: the model's name.
      seed: the run's.
      warnings: what a reader of the numbers must know.
    """
    return {
        "task": task,
        "protocol": dict(protocol),
        "protocol_hash": digest(protocol),
        "n_expected": n_expected,
        "n_missing": n_missing,
        "missing": [dict(entry) for entry in missing],
        "metrics": dict(metrics),
        "warnings": list(warnings),
        "model": model,
        "seed": seed,
        "version": __version__,
    }


def write(path: Path, value: Mapping[str, Any]) -> None:
    """Write the object as indented JSON; a reader finds the old file or the whole new one, never a part.

    Raises:
      OSError: no such folder, no permission, disk full; the old file is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump(value, stream, indent=2, ensure_ascii=False, allow_nan=False)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
