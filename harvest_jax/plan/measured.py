"""A measured step, to scale estimates by."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from harvest_jax.config import run as run_config
from harvest_jax.config.run import RunConfig
from harvest_jax.errors import ConfigError
from harvest_jax.plan.chips import Chip


@dataclasses.dataclass(frozen=True)
class Measured:
    """One result of `harvest bench step --json`."""

    path: str
    run: RunConfig
    devices: int
    step_ms: float
    peak_bytes: int


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Factors that the estimates are multiplied by."""

    time: float = 1.0
    memory: float = 1.0
    source: str = ""  # the measurement's file; empty: not calibrated

    def to_dict(self) -> dict[str, Any] | str:
        """For JSON."""
        return dataclasses.asdict(self) if self.source else "not calibrated"


def read_measured(path: Path, chip: Chip) -> Measured:
    """Read the last line of a file that `harvest bench step --json` wrote.

    Raises:
      ConfigError: the file holds no such result or one of another chip, or its config cannot be read any more.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
        found = json.loads(text if "\n" in text and text.startswith("{") else text.splitlines()[-1])
        device, devices = str(found["device"]), int(found["devices"])
        step_ms, peak = float(found["step_ms_unblocked"]), int(found["peak_bytes"])
        config, overrides = str(found["config"]), [str(override) for override in found["overrides"]]
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ConfigError(f"--measured {path} is not a result of `harvest bench step --json`: {error}") from error
    model = chip.name.split()[1]  # "NVIDIA H200 SXM" is "NVIDIA H200" to JAX
    if model not in device:
        raise ConfigError(f"--measured {path} was measured on {device}, not on {chip.name}")
    return Measured(str(path), run_config.load(config, overrides), devices, step_ms, peak)
