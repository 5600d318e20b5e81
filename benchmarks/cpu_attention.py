"""Attention on a CPU, forward and backward: `jax.nn.dot_product_attention`, and the blocks of heads that we use.

    python benchmarks/cpu_attention.py --out benchmarks/results/cpu_attention.json

Both are timed in turns, in one process, beside what bounds them: the arithmetic of the products at the rate of a large
product on the same machine. The median counts. Shapes: a clip of the generated world with a tenth of the patches and
with all; B/16 with a quarter and a half of the patches of 8 frames.
"""

import argparse
import functools
import json
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from harvest_jax.machine import available_cores
from harvest_jax.model.blocks import attend
from harvest_jax.train.matmul import matmul_rate

SHAPES = ((64, 52, 4, 16), (64, 513, 4, 16), (4, 393, 12, 64), (4, 785, 12, 64))  # clips, tokens, heads, head_dim
PRODUCTS = 6  # two forward, four backward
TURNS = 7


def milliseconds(shape: tuple[int, int, int, int]) -> dict[str, float]:
    """Median times of output and gradients, by implementation."""
    arrays = [jax.random.normal(jax.random.key(seed), shape, jnp.float32) for seed in range(3)]
    times: dict[str, list[float]] = {"xla": [], "cpu": []}
    compiled = {}
    for name in times:
        total = functools.partial(_total, implementation=name)
        compiled[name] = jax.jit(jax.grad(total, (0, 1, 2))).lower(*arrays).compile()
        jax.block_until_ready(compiled[name](*arrays))
    for _ in range(TURNS):
        for name, program in compiled.items():
            began = time.perf_counter()
            jax.block_until_ready(program(*arrays))
            times[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(found) for name, found in times.items()}


def _total(*arrays: jax.Array, implementation: str) -> jax.Array:
    return jnp.square(attend(*arrays, implementation)).sum()


def main() -> None:
    """Print a table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rate, rows = matmul_rate("float32"), []
    print("| clips, tokens, heads, width of a head | arithmetic | XLA's | blocks of heads |\n|---|---|---|---|")
    for shape in SHAPES:
        clips, tokens, heads, width = shape
        bound = 1e3 * PRODUCTS * 2 * clips * heads * tokens**2 * width / rate
        found = milliseconds(shape)
        rows.append({"shape": shape, "arithmetic_ms": bound, **{f"{name}_ms": ms for name, ms in found.items()}})
        print(f"| {shape} | {bound:.1f} ms | {found['xla']:.1f} ms | {found['cpu']:.1f} ms |", flush=True)
    if args.out:
        facts = {"jax": jax.__version__, "cores": available_cores(), "matmul_flops_per_s": rate, "rows": rows}
        args.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
