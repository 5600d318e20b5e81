r"""The training step of harvest_jax and the same one in PyTorch (`torch_step.py`), timed in turns on one device.

    python benchmarks/vs_torch.py --size B/16 --batch 8 --keep 0.1 --dtype float32 --device cpu
    python benchmarks/vs_torch.py --size B/16 --batch 1024 --dtype bfloat16 --steps 60 --device gpu
    python benchmarks/vs_torch.py --size B/16 --batch 4096 --device gpu --apart --set model.remat=dots

Arms (`--arms` picks some):

    harvest        the jitted step of `train/program.py`, as `harvest train` runs it; it gets the kept patches, because
                   the loader drops the others
    torch          torch.compile; gets all patches and drops after the patch embedding, as the earlier methods do
    torch_early    as `torch`, but gathers the kept pixels before the embedding: the effect of that choice
    torch_eager    as `torch`, without torch.compile

Every arm is a process (`vs_torch_arm.py`) with the same parameters (harvest_jax's, passed in files) and the same batch,
which is on the device before the timing. All processes exist during the whole run, and only one steps at a time, so
that the threads and the memory of the libraries do not mix. Blocks of steps alternate, forwards and backwards (ABC CBA
...), so that a drift of the machine affects all arms; each block begins with one step that is not timed. `--apart`
starts a process for each block and ends it afterwards (with compilation caches on disk): for batches of which two do
not fit into the device's memory.

A block's time is from the call of its first step until its last step is done, by the host's clock, without waiting in
between. The losses of the first step are compared, and the run fails if they differ.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harvest_jax.machine import available_cores

ARMS = ("harvest", "torch", "torch_early", "torch_eager")
LOSS_BOUND = {"float32": 1e-4, "bfloat16": 2e-2}  # relative, of the first step
ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="B/16")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8, help="clips")
    parser.add_argument("--keep", type=float, default=0.1, help="share of the patches that is kept")
    parser.add_argument("--dtype", choices=list(LOSS_BOUND), default="bfloat16")
    parser.add_argument("--steps", type=int, default=16, help="timed steps of each arm")
    parser.add_argument("--block", type=int, default=2, help="timed steps of an arm in a block")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--threads", type=int, default=available_cores(), help="cores that may be used")
    parser.add_argument("--arms", default="harvest,torch,torch_early", help=f"of {','.join(ARMS)}, joined by commas")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="more fields of the config")
    parser.add_argument("--apart", action="store_true", help="one process at a time")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/vs_torch_SIZE_DTYPE_DEVICE.json")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)  # the two below start an arm's process
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.arm:
        from benchmarks.vs_torch_arm import serve  # it must import neither library before it sets up its cores

        serve(args)
        return
    arms = args.arms.split(",")
    if unknown := set(arms) - set(ARMS):
        parser.error(f"--arms: {', '.join(sorted(unknown))} must be among {', '.join(ARMS)}")
    with tempfile.TemporaryDirectory(prefix="vs_torch_") as work:
        args.work = Path(work)
        result = compare(args, arms)
    print(table(result))
    name = f"vs_torch_{args.size.replace('/', '')}_{args.dtype}_{args.device}.json"
    target = args.json or ROOT / "benchmarks/results" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {target}", file=sys.stderr)


class Arm:
    """One arm's process, spoken to by lines: {"run": N} gives one block's figures."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        own = [f"--{field}={getattr(args, field)}" for field in ("size", "frames", "batch", "keep", "dtype", "steps")]
        own += [f"--{field}={getattr(args, field)}" for field in ("device", "threads", "work")]
        own += [f"--set={override}" for override in args.set]
        caches = {
            "JAX_COMPILATION_CACHE_DIR": str(args.work / "jax"),
            "TORCHINDUCTOR_CACHE_DIR": str(args.work / "inductor"),
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # other arms' memory is on the same GPU
            "JAX_PLATFORMS": "cuda" if args.device == "gpu" else "cpu",
            "OMP_NUM_THREADS": str(args.threads),
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, __file__, f"--arm={name}", *own]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=os.environ | caches)
        self.facts = self.answer()
        print(f"{name}: ready after {self.facts['ready_s']:.0f} s", file=sys.stderr)

    def answer(self) -> dict[str, Any]:
        """The next line; ends the run where there is none."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"vs_torch: {' '.join(self.process.args)} ended with code {self.process.wait()}")  # type: ignore[arg-type]
        return json.loads(line)

    def run(self, steps: int) -> dict[str, Any]:
        """Figures of one block."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"run": steps}) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def stop(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compare(args: argparse.Namespace, arms: Sequence[str]) -> dict[str, Any]:
    """The whole run."""
    # Ours goes first, whether it is timed or not: it hands the parameters over.
    started = {"harvest": Arm("harvest", args)}
    if not args.apart:
        started |= {name: Arm(name, args) for name in arms if name != "harvest"}
    facts = {name: arm.facts for name, arm in started.items()}
    if args.apart or "harvest" not in arms:
        started.pop("harvest").stop()
    blocks: dict[str, list[dict[str, Any]]] = {name: [] for name in arms}
    for turn in range(max(1, args.steps // args.block)):
        for name in arms if turn % 2 == 0 else arms[::-1]:
            arm = started.get(name) or Arm(name, args)
            facts.setdefault(name, arm.facts)
            blocks[name].append(arm.run(args.block))
            if args.apart:
                arm.stop()
    for arm in started.values():
        arm.stop()

    losses = {name: facts[name]["first_loss"] for name in facts}
    ours = losses["harvest"]
    if any(abs(loss - ours) > LOSS_BOUND[args.dtype] * abs(ours) for loss in losses.values()):
        sys.exit(f"vs_torch: the arms compute different things, losses of the first step: {losses}")
    flops = facts["harvest"]["flops_per_clip"]
    figures = {name: summary(blocks[name], args.batch, facts[name], flops) for name in arms}
    if "harvest" in figures:
        for name in arms:
            pairs = [b["wall_s"] / a["wall_s"] for a, b in zip(blocks["harvest"], blocks[name], strict=True)]
            figures[name]["harvest_is_faster_by"] = {
                "p50": statistics.median(pairs),
                "least": min(pairs),
                "most": max(pairs),
                "of_cpu_time": statistics.median(b["cpu_s"] for b in blocks[name])
                / statistics.median(a["cpu_s"] for a in blocks["harvest"]),
            }
    versions = {"python": platform.python_version()}
    for fact in facts.values():
        versions |= fact["versions"]
    names = ("size", "frames", "batch", "keep", "dtype", "steps", "block", "threads", "apart", "set")
    return {
        "what": {name: getattr(args, name) for name in names} | {"tflop_per_clip": flops / 1e12},
        "device": facts["harvest"]["device"],
        "versions": versions,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "load_average": os.getloadavg(),
        "arms": figures,
    }


def summary(blocks: Sequence[Mapping[str, Any]], batch: int, facts: Mapping[str, Any], flops: float) -> dict[str, Any]:
    """Blocks of one arm to figures per step."""
    wall = sorted(block["wall_s"] / block["steps"] for block in blocks)
    middle = statistics.median(wall)
    return {
        "clips_per_s": batch / middle,
        "tflop_per_s": batch / middle * flops / 1e12,
        "ms_p50": middle * 1e3,
        "ms_least": wall[0] * 1e3,
        "ms_most": wall[-1] * 1e3,
        "cpu_s_per_step": statistics.median(block["cpu_s"] / block["steps"] for block in blocks),
        "peak_bytes": max(block["peak_bytes"] for block in blocks),
        "bytes_to_device_per_clip": facts["batch_bytes"] // batch,
        **{name: facts[name] for name in ("first_loss", "ready_s", "note")},
    }


def table(result: Mapping[str, Any]) -> str:
    """Markdown."""
    what = result["what"]
    lines = [
        f"{what['size']}, {what['frames']} frames, batch {what['batch']}, keep {what['keep']}, {what['dtype']}, "
        f"{result['device']}, {what['threads']} threads, {what['tflop_per_clip']:.3g} TFLOP a clip",
        "",
        "| arm | clips/s | ms p50 (least - most) | TFLOP/s | CPU s a step | peak GB | harvest / it (by CPU time) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, arm in result["arms"].items():
        ratio = arm.get("harvest_is_faster_by")
        cells = [
            name + (f" ({arm['note']})" if arm["note"] else ""),
            f"{arm['clips_per_s']:.4g}",
            f"{arm['ms_p50']:.4g} ({arm['ms_least']:.4g} - {arm['ms_most']:.4g})",
            f"{arm['tflop_per_s']:.3g}",
            f"{arm['cpu_s_per_step']:.3g}",
            f"{arm['peak_bytes'] / 1e9:.2f}",
            f"{ratio['p50']:.2f} ({ratio['of_cpu_time']:.2f})" if ratio else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
