"""The measured peak of a device: its rate of large matrix products."""

import time

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

# Sides of the square matrices; the fastest counts. The largest product is 1.1 TFLOP (1.4 ms on an H200, 128 MB for each
# bfloat16 matrix). A CPU core does 0.1 TFLOP/s, and is as fast with matrices that fit its caches.
SIDES = {"cpu": (1024, 2048), "accelerator": (4096, 8192)}
BURST = 0.05  # seconds of work that is enqueued at a time, so that the time between two products does not count


def matmul_rate(dtype: DTypeLike, seconds: float = 1.0) -> float:
    """Best FLOP/s (a multiply-add as two) of a square product of normal random matrices on the default device.

    At the default precision, as in the model: float32 may be TF32 on NVIDIA GPUs and is bfloat16 on TPUs. The numbers
    are random because a GPU multiplies zeros faster than the numbers of a model: they take less power.

    Args:
      dtype: of the factors and of the result, "bfloat16" or "float32".
      seconds: of measuring, without compiling.
    """
    sides = SIDES["cpu" if jax.default_backend() == "cpu" else "accelerator"]
    return max(_rate(side, dtype, seconds / len(sides)) for side in sides)


def _rate(side: int, dtype: DTypeLike, seconds: float) -> float:
    """Best FLOP/s of the bursts."""
    left, right = (jax.random.normal(jax.random.key(seed), (side, side), dtype) for seed in range(2))
    product = jax.jit(jnp.matmul).lower(left, right).compile()

    def burst(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            result = product(left, right)
        result.block_until_ready()
        return time.perf_counter() - start

    burst(1)
    count = max(1, round(BURST / burst(1)))
    best, end = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < end:
        best = min(best, burst(count) / count)
    return 2.0 * side**3 / best
