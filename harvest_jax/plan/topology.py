"""Topologies by name (`v5e:16x16`, `h200:8`, `cpu:8`) and devices to compile for, which need not be there."""

import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

import jax

from harvest_jax.errors import ConfigError
from harvest_jax.plan.chips import CHIPS, Chip
from harvest_jax.plan.gpu_target import compiler_is_here, gpu_devices

MOST_DEVICES = 16_384
EXAMPLES = "v5e:16x16, v5p:4x4x4, v6e:8x8, v4:4x4x4, h200:8, h100:8, a100:8 or cpu:8"


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices of one kind and how they are connected; they need not be there."""

    name: str
    kind: str  # of CHIPS, or "cpu"
    shape: tuple[int, ...]  # of one slice
    slices: int = 1  # of a TPU: each with a network of its own, a slower one between them

    @property
    def chip(self) -> Chip | None:
        """The public figures, None for a CPU."""
        return CHIPS.get(self.kind)

    @property
    def modelled(self) -> bool:
        """Whether its steps are modelled instead of compiled: GPUs without JAX's CUDA plugin."""
        return self.chip is not None and self.chip.maker == "gpu" and not compiler_is_here()

    @property
    def count(self) -> int:
        """The number of devices."""
        return math.prod(self.shape) * self.slices


def parse_topology(name: str, slices: int = 1) -> Topology:
    """`KIND:SIZES` to a topology, of several slices of these sizes.

    Raises:
      ConfigError: the name means no topology.
    """
    kind, _, sizes = name.partition(":")
    if (kind not in CHIPS and kind != "cpu") or not re.fullmatch(r"[1-9]\d{0,4}(x[1-9]\d{0,4}){0,2}", sizes):
        raise ConfigError(f"--topology {name} is not known: write one such as {EXAMPLES}")
    shape = tuple(int(size) for size in sizes.split("x"))
    if math.prod(shape) > MOST_DEVICES:
        raise ConfigError(f"--topology {name}: {math.prod(shape)} devices; at most {MOST_DEVICES} can be planned for")
    tpu = kind in CHIPS and CHIPS[kind].maker == "tpu"
    if (len(shape) != CHIPS[kind].torus) if tpu else (len(shape) > 1):
        dimensions = f"{CHIPS[kind].torus} numbers, chips along each side of the slice" if tpu else "one number"
        raise ConfigError(f"--topology {name}: {kind} takes {dimensions}: write one such as {EXAMPLES}")
    machine = CHIPS[kind].machine if kind in CHIPS else 0
    if machine and shape[0] > machine and shape[0] % machine:
        raise ConfigError(f"--topology {name}: more than {machine} GPUs must be whole machines of {machine}")
    if slices > 1 and not (tpu and CHIPS[kind].between):
        known = ", ".join(one for one, chip in CHIPS.items() if chip.maker == "tpu" and chip.between)
        raise ConfigError(f"--slices {slices} needs TPUs whose network between slices is known ({known}), not {name}")
    if not 1 <= slices <= MOST_DEVICES // math.prod(shape):
        raise ConfigError(f"--slices {slices} of {math.prod(shape)} devices: at most {MOST_DEVICES} can be planned for")
    return Topology(name, kind, shape, slices)


def use_cpu_backend(count: int) -> None:
    """Keep JAX on the CPU, with `count` virtual devices, if its backends have not started yet.

    With libtpu installed JAX would look for a TPU on this machine first, and fail with an error.
    """
    jax.config.update("jax_platforms", "cpu")
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        try:
            jax.config.update("jax_num_cpu_devices", count)
        except RuntimeError:  # the backends have started
            return


def devices(topology: Topology) -> list[Any]:
    """Devices to compile for: abstract ones for a TPU or a GPU, virtual ones on this CPU otherwise.

    For modelled GPUs virtual CPU devices stand in.

    Raises:
      ConfigError: libtpu is missing, a compiler does not know the topology, or there are too few virtual devices.
    """
    if topology.chip is not None and not topology.modelled:
        use_cpu_backend(1)
        tpu = topology.chip.maker == "tpu"
        return _tpu_devices(topology) if tpu else gpu_devices(topology.kind, topology.count)
    use_cpu_backend(topology.count)
    found = jax.devices("cpu")
    if len(found) < topology.count:
        raise ConfigError(
            f"--topology {topology.name} needs {topology.count} virtual devices and JAX has {len(found)}: "
            f"set XLA_FLAGS=--xla_force_host_platform_device_count={topology.count}"
        )
    return found[: topology.count]


def _tpu_devices(topology: Topology) -> list[Any]:
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            f"--topology {topology.name} needs the TPU compiler, which runs on any machine: "
            "pip install libtpu, or the extra harvest_jax[plan]"
        )
    # Otherwise libtpu asks Google Cloud's metadata server what machine this is, and warns about a missing accelerator
    # type; the type does not change the topology
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    # by default one process at a time may load libtpu
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    choice: dict[str, Any] = {"num_slices": topology.slices} if topology.slices > 1 else {}
    if topology.kind == "v4":  # a chip's two cores are one device; in libtpu's description they are two by default
        choice["chip_config_name"] = "megacore"
    if 1 in topology.shape[:2]:  # fewer chips than the 2 x 2 of a whole host
        choice["chips_per_host_bounds"] = [min(size, 2) for size in topology.shape[:2]] + [1]
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **choice).devices
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise ConfigError(f"--topology {topology.name}: libtpu says: {_first_line(error)}") from error
    if len(found) != topology.count:
        raise ConfigError(f"--topology {topology.name}: libtpu describes {len(found)} devices, not {topology.count}")
    return list(found)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
