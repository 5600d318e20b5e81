"""Descriptions of GPUs for XLA's compiler, which needs JAX's CUDA plugin and no GPU.

Without a GPU the compiler cannot tune kernels. Matrix products go to cuBLAS, as most do on a GPU; XLA's own kernels
(Triton), which need tuning, are turned off.
"""

import dataclasses
import importlib.metadata
import importlib.util
from typing import Any

from harvest_jax.errors import ConfigError
from harvest_jax.plan.chips import CHIPS

PLUGINS = ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")
COMPILER_OPTIONS = {"xla_gpu_enable_triton_gemm": False}


@dataclasses.dataclass(frozen=True)
class Gpu:
    """The figures that XLA needs, sizes in bytes; from NVIDIA's architecture papers and CUDA's programming guide."""

    capability: tuple[int, int]
    multiprocessors: int
    lanes: int  # float32 units of a multiprocessor
    shared: int  # shared memory of a multiprocessor
    cache: int  # second-level cache
    clock: float  # GHz, boosted


GPUS = {
    "a100": Gpu((8, 0), 108, 64, 164 * 1024, 40 * 2**20, 1.41),
    "h100": Gpu((9, 0), 132, 128, 228 * 1024, 50 * 2**20, 1.98),
    "h200": Gpu((9, 0), 132, 128, 228 * 1024, 50 * 2**20, 1.98),
}


def compiler_is_here() -> bool:
    """Whether JAX's CUDA plugin is installed."""
    return importlib.util.find_spec("jax_plugins") is not None and any(map(importlib.util.find_spec, PLUGINS))


def gpu_devices(kind: str, count: int) -> list[Any]:
    """Abstract devices of a GPU kind: part of one machine, or whole machines (`parse_topology` checks that).

    Raises:
      ConfigError: the plugin does not work on this machine.
    """
    machine = CHIPS[kind].machine
    from jax.experimental import topologies

    shape = f"1x{max(count // machine, 1)}x{min(count, machine)}"
    try:
        found = topologies.get_topology_desc(platform="cuda", topology=shape, target_config=target(kind)).devices
    except (RuntimeError, ValueError, NotImplementedError, AssertionError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"--topology {kind}:{count}: JAX's CUDA plugin says: {first}") from error
    if len(found) != count:
        raise ConfigError(f"--topology {kind}:{count}: the CUDA plugin describes {len(found)} devices, not {count}")
    return list(found)


def target(kind: str) -> str:
    """A GPU as text of XLA's `GpuTargetConfigProto`."""
    gpu, chip = GPUS[kind], CHIPS[kind]
    cudnn, cuda = _version("nvidia-cudnn-cu", "9.8"), _version("nvidia-cuda-runtime", "12.9")
    return f"""
gpu_device_info {{
  cuda_compute_capability {{ major: {gpu.capability[0]} minor: {gpu.capability[1]} }}
  core_count: {gpu.multiprocessors}
  fpus_per_core: {gpu.lanes}
  clock_rate_ghz: {gpu.clock}
  memory_bandwidth: {int(chip.bandwidth)}
  device_memory_size: {chip.memory}
  l2_cache_size: {gpu.cache}
  shared_memory_per_core: {gpu.shared}
  shared_memory_per_block: {48 * 1024}
  shared_memory_per_block_optin: {gpu.shared - 1024}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}}
platform_name: "CUDA"
dnn_version_info {{ major: {cudnn[0]} minor: {cudnn[1]} }}
runtime_version {{ major: {cuda[0]} minor: {cuda[1]} }}
device_description_str: "{chip.name}"
"""


def _version(package: str, default: str) -> list[int]:
    """Major and minor version of a package whose name may end in CUDA's version."""
    for name in (f"{package}13", f"{package}12", f"{package}-cu12", package):
        try:
            default = importlib.metadata.version(name)
            break
        except importlib.metadata.PackageNotFoundError:
            continue
    return [int(part) for part in default.split(".")[:2]]
