"""Where a figure was measured."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from harvest_jax.machine import available_cores


def this_machine() -> dict[str, Any]:
    """CPU, cores, the load of the last 15 minutes (processes that want to run), versions."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": available_cores(),
        "load": round(os.getloadavg()[2], 2),
        "python": platform.python_version(),
        "jax": importlib.metadata.version("jax"),
    }
