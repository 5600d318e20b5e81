"""What depends on the kind of device: types of numbers, and which attention kernels run."""

from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from harvest_jax.errors import ConfigError
from harvest_jax.model.cpu_attention import attention_of

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}  # of model.dtype


def is_gpu(device: Any) -> bool:
    """Whether a device is an NVIDIA GPU."""
    return device.platform in ("gpu", "cuda")


def attention(choice: str, dtype: str, mesh: Mesh) -> str:
    """`model.attention` for these devices: "cudnn", "cpu" or "xla".

    On several virtual CPU devices XLA splits the batch itself, which blocks would hinder. cuDNN's fused
    kernels need half precision and an NVIDIA GPU of the Ampere generation or newer.

    Raises:
      ConfigError: cudnn is asked for where it cannot run.
    """
    device, half = mesh.devices.flat[0], dtype == "bfloat16"
    # A device that does not tell its compute capability (one of an abstract topology) is taken for an Ampere.
    gpu = is_gpu(device) and float(getattr(device, "compute_capability", "8.0")) >= 8.0
    if choice == "cudnn" and not (gpu and half):
        raise ConfigError(
            "model.attention=cudnn needs model.dtype=bfloat16 and GPUs of the Ampere generation or newer, not "
            f"{dtype} on {device.platform}: set auto"
        )
    if choice == "auto":
        return "cudnn" if gpu and half else attention_of(device.platform) if mesh.size == 1 else "xla"
    return choice


def unroll_layers(mesh: Mesh) -> bool:
    """Whether the layers are compiled one by one: a loop over them costs memory traffic (docs/decisions.md)."""
    return bool(mesh.devices.flat[0].platform != "cpu")
