"""Where a result comes from, besides its protocol: model, files that were read, program and machine."""

import datetime
import importlib.metadata
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from harvest_jax.evaluate.clips.embeddings import VideoTextModel
from harvest_jax.input.annotation_files import file_digest
from harvest_jax.model.inference import PRECISION
from harvest_jax.version import __version__

LIBRARIES = ("jax", "jaxlib", "flax", "numpy", "pillow", "av", "simplejpeg")


def model_facts(model: VideoTextModel) -> dict[str, Any]:
    """The model: its name (a path), the digest of description and weights, where they come from, its description."""
    return {
        "name": model.name,
        "sha256": model.digest,
        "origin": dict(model.origin),
        "config": model.config.to_dict(),
    }


def run_facts(command: Sequence[str], seconds: float, seed: int) -> dict[str, Any]:
    """Program, machine and time.

    Args:
      command: the words of the command line; empty for a call from Python.
      seconds: that the evaluation took.
      seed: of the config.
    """
    device = jax.devices()[0]
    return {
        "command": list(command),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "seed": seed,
        "version": __version__,
        "python": platform.python_version(),
        "libraries": _versions(),
        "system": f"{sys.platform} {platform.machine()}",
        "device": device.device_kind,
        "devices": jax.device_count(),
        "dtype": "float32",
        "matmul_precision": PRECISION,
    }


def file_facts(files: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """For each purpose ("manifest", "classes", ...) the file's name and the SHA-256 (hex) of its bytes.

    Folders have only their name: what is read from them has digests of its own.

    Raises:
      DataError: a file cannot be read.
    """
    facts = {}
    for purpose, path in files.items():
        facts[purpose] = {"name": path.name}
        if path.is_file():
            facts[purpose]["sha256"] = file_digest(path)
    return facts


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found
