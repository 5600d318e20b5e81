"""Memory of the contrastive loss and its gradient on one device: the whole matrix at once, and in chunks of captions.

    python benchmarks/contrastive_memory.py --out benchmarks/results/contrastive_memory.json

Compiled, not run: what the compiler sets aside (`memory_analysis`), beside the embeddings themselves.
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np

from harvest_jax.train.losses import softmax_loss


def temporary_bytes(batch: int, width: int, chunk: int) -> int:
    """Bytes that the loss with its gradient needs beside its inputs and outputs."""
    embeddings = jax.ShapeDtypeStruct((batch, width), np.float32)
    scale = jax.ShapeDtypeStruct((), np.float32)
    gradient = jax.jit(jax.grad(lambda *args: softmax_loss(*args, chunk)[0], (0, 1, 2)))
    return gradient.lower(embeddings, embeddings, scale).compile().memory_analysis().temp_size_in_bytes


def main() -> None:
    """Print a table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--width", type=int, default=512, help="of the embeddings")
    args = parser.parse_args()
    rows = []
    print("| batch | whole matrix | chunks of 1,024 |\n|---|---|---|")
    for batch in (2048, 4096, 8192, 16384, 32768):
        row = {"batch": batch} | {f"chunk_{chunk}": temporary_bytes(batch, args.width, chunk) for chunk in (0, 1024)}
        rows.append(row)
        print(f"| {batch:,} | {row['chunk_0'] / 2**20:,.0f} MiB | {row['chunk_1024'] / 2**20:,.0f} MiB |", flush=True)
    if args.out:
        found = {"width": args.width, "jax": jax.__version__, "platform": jax.default_backend(), "rows": rows}
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
