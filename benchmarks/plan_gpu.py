r"""The training step, compiled by XLA for GPUs, over model x kept patches x batch, or with one change at a time.

    python benchmarks/plan_gpu.py                                    # one H200 (no GPU is needed): 20 minutes
    python benchmarks/plan_gpu.py --ablate                           # B/16, batch 1,024: 5 minutes
    python benchmarks/plan_gpu.py --topology h100:8 --models B/16 --keeps 0.1 --batches 8192

Needs JAX's CUDA plugin (pip install -c constraints.txt -e '.[gpu-cuda13]'). Memory, arithmetic and memory traffic are
those of compiled programs; times are the estimates of `harvest plan`: kernels one after another, each at the public
peak of the chip. "ceiling" is the MFU of such a step, the largest that its kernels allow.

Writes plan_NAME.json and plan_NAME.md; NAME is --name or the topology.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.step import LAYERS, RESULTS, ablations
from harvest_jax.config import files as config_files
from harvest_jax.config import run as run_config
from harvest_jax.model import blocks
from harvest_jax.plan.chips import GIB
from harvest_jax.plan.gpu_target import compiler_is_here
from harvest_jax.plan.planning import plan
from harvest_jax.plan.topology import parse_topology
from harvest_jax.train.flops import step_flops
from harvest_jax.train.model_of_run import model_config

CONFIG = "harvest_b16.py"
HEADER = "| step | GiB | TFLOP | GB | compute ms | memory ms | kernels ms | clips/s | ceiling |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", default="h200:1", help="of `harvest plan` (default: h200:1)")
    parser.add_argument("--models", nargs="+", default=["B/16", "L/14"], help="named sizes")
    parser.add_argument("--keeps", nargs="+", type=float, default=[0.1, 0.25, 1.0], help="keep ratios")
    parser.add_argument("--batches", nargs="+", type=int, default=[1024, 4096], help="clips a step")
    parser.add_argument("--remats", nargs="+", default=["dots", "full"], help="model.remat")
    parser.add_argument("--ablate", action="store_true", help="B/16, batch 1,024: one thing changed at a time")
    parser.add_argument("--name", help="of the results (default: the topology's)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    args = parser.parse_args()
    chip = parse_topology(args.topology).chip
    if chip is None or chip.maker != "gpu":
        parser.error(f"--topology {args.topology}: GPUs are compiled for here; for others see `harvest plan`")
    args.out.mkdir(parents=True, exist_ok=True)
    if not compiler_is_here():
        parser.error("JAX's CUDA plugin is not installed: pip install -c constraints.txt -e '.[gpu-cuda13]'")
    name = args.name or f"{args.topology.replace(':', '_')}{'_ablation' if args.ablate else ''}"
    rows: list[dict[str, Any]] = []
    for title, words in changes() if args.ablate else grid(args):
        rows.append({"step": title, **planned(args.topology, words)})
        (args.out / f"plan_{name}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        (args.out / f"plan_{name}.md").write_text(table(rows), encoding="utf-8")
        print(line(rows[-1]), flush=True)


def grid(args: argparse.Namespace) -> list[tuple[str, tuple[str, ...]]]:
    """(name, overrides) of each cell."""
    return [
        (f"{model}, {keep:.0%} kept, batch {batch}, remat {remat}",
         (f"model.size={model}", f"model.keep_ratio={keep}", f"train.batch_size={batch}", f"model.remat={remat}"))
        for model in args.models for keep in args.keeps for batch in args.batches for remat in args.remats
    ]  # fmt: skip


def changes() -> list[tuple[str, tuple[str, ...]]]:
    """(name, overrides): what benchmarks/step.py measures on a GPU, but float32, whose peak is another."""
    return [(name, words) for name, words in ablations(1024, cpu=False) if name != "float32"]


def planned(topology: str, words: tuple[str, ...]) -> dict[str, Any]:
    """One compiled step."""
    overrides = [word.removeprefix("--config.") for word in words if word != LAYERS]
    run = run_config.load(str(config_files.config_file(CONFIG)), overrides)
    stack = blocks.stack
    if LAYERS in words:
        blocks.stack = lambda block, layers, remat, unroll: stack(block, layers, remat, not unroll)
    try:
        found = plan(run, parse_topology(topology))
    finally:
        blocks.stack = stack
    arithmetic = step_flops(run, model_config(run))["total"] * run.train.batch_size / found["devices"]
    return {"overrides": overrides, "useful_flops": arithmetic} | found


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    times = row["estimate"]
    peak = row["flops"] / (times["compute_ms"] / 1e3)
    cells = [
        row["step"],
        f"{row['per_device_bytes'] / GIB:.1f}" + ("" if row["fits"] else " (does not fit)"),
        f"{row['flops'] / 1e12:.1f}",
        f"{row['bytes_accessed'] / 1e9:.0f}",
        f"{times['compute_ms']:.1f}",
        f"{times['memory_ms']:.1f}",
        f"{times['kernels_ms']:.1f}",
        f"{times['clips_per_s']:,.0f}",
        f"{row['useful_flops'] / (times['step_ms'] / 1e3) / peak:.0%}",
    ]
    return "| " + " | ".join(cells) + " |"


def table(rows: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    about, usable = rows[0], rows[0]["usable_bytes"] / GIB
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items() if version)
    head = f"{about['devices']} x {about['chip']}, compiled, not run; {usable:.1f} GiB usable; {versions}."
    return "\n".join([head, "", HEADER, "|---" * HEADER.count(" | ") + "|---|", *map(line, rows)]) + "\n"


if __name__ == "__main__":
    main()
