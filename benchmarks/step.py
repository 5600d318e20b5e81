r"""Throughput, MFU and memory of the training step over model x kept patches x batch, and the cost of its parts.

    python benchmarks/step.py                                        # a GPU: B/16 and L/14, 4 keep ratios, 7 batches
    python benchmarks/step.py --models B/16 --keeps 0.1 --batches 1024 2048 4096
    python benchmarks/step.py --ablate                               # B/16, batch 1024, one change at a time
    python benchmarks/step.py --cpu                                  # B/16, 4 clips, 6 minutes on 2 cores
    python benchmarks/step.py --cpu --ablate                         # 5 minutes
    python benchmarks/step.py --models L/14 -- --config.text.length=77

Every cell is `harvest bench step --json` in its own process, so that running out of memory ends one cell only. A cell
that does not fit is tried again with the next of WAYS, which take less memory and more arithmetic; larger batches of
the same row begin with the way in which the last one fitted. The results are written after each cell: step_NAME.json
(all that `harvest bench step` prints), step_NAME.md (a table) and step_NAME.png; NAME is --name or the device. Cells
that are in step_NAME.json already are not measured again, except with --again.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
CONFIG = "configs/harvest_b16.py"  # from ROOT
# (model.remat, train.accumulate), tried in this order
WAYS = (("none", 1), ("dots", 1), ("full", 1), ("full", 2), ("full", 4), ("full", 8), ("full", 16))
FIXED_MASK = "--config.train.lr_multipliers=(('mask_embedding',0.0),('text/.*',0.0),('.*',1.0))"
NO_DECODER = ("--config.model.decoder_layers=0", "--config.train.mlm_weight=0.0")
# Layers are a loop on CPUs and unrolled elsewhere; no config field changes that. This word swaps the two.
LAYERS = "--layers-otherwise"
OTHERWISE = (
    "import sys; from harvest_jax.model import blocks; stack = blocks.stack; "
    "blocks.stack = lambda block, layers, remat, unroll: stack(block, layers, remat, not unroll); "
    "from harvest_jax.cli import main; sys.exit(main(sys.argv[1:]))"
)
ROW = re.compile(r"^harvest bench: (.*)$", re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", help="named sizes (default: B/16 and L/14; on a CPU B/16)")
    parser.add_argument("--keeps", nargs="+", type=float, help="keep ratios (default: 0.1 0.25 0.5 1; CPU 0.1 0.25 1)")
    parser.add_argument("--batches", nargs="+", type=int, help="clips a step (default: 64 to 4096; CPU 4)")
    parser.add_argument("--steps", type=int, help="timed steps of each cell (default: 20; CPU 1 to 5)")
    parser.add_argument("--cpu", action="store_true", help="run on the CPU, small")
    parser.add_argument("--ablate", action="store_true", help="one row of cells that differ in one thing each")
    parser.add_argument("--name", help="of the results (default: the device's)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one cell")
    parser.add_argument("--again", action="store_true", help="measure what the results already hold, too")
    parser.add_argument("overrides", nargs="*", help="after --: --config.FIELD=VALUE of every cell")
    args = parser.parse_args()
    if bad := [word for word in args.overrides if not word.startswith("--config.")]:
        parser.error(f"{bad[0]}: only --config.FIELD=VALUE may follow --")
    environment = dict(os.environ)
    if args.cpu:
        environment["JAX_PLATFORMS"] = "cpu"
        if not any(word.startswith("--config.model.dtype=") for word in args.overrides):
            args.overrides.append("--config.model.dtype=float32")  # few CPUs multiply bfloat16
    environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")  # of a GPU; the default leaves a quarter unused
    models = args.models or (["B/16"] if args.cpu or args.ablate else ["B/16", "L/14"])
    keeps = args.keeps or ([0.1] if args.ablate else [0.1, 0.25, 1.0] if args.cpu else [0.1, 0.25, 0.5, 1.0])
    batches = args.batches or ([4] if args.cpu else [1024] if args.ablate else [2**n for n in range(6, 13)])
    runner = Runner(args, environment)
    for model in models:
        for keep in keeps:
            if args.ablate:
                for change, words in ablations(batches[0], args.cpu):
                    runner.cell(model, keep, batches[0], change=change, words=words)
                continue
            # In 20 GB of a CPU machine 4 clips with all patches need remat; a comparison needs the same for all.
            way: int | None = 1 if args.cpu else 0
            for batch in sorted(batches):
                way = runner.cell(model, keep, batch, way)
                if way is None:
                    break  # no larger batch fits either


def ablations(batch: int, cpu: bool) -> list[tuple[str, tuple[str, ...]]]:
    """(name, overrides) of the unchanged step and of steps with one change."""
    pieces, chunk = min(4, batch), max(1, batch // 4)
    changes = [
        ("as it is", ()),
        ("mask vector fixed: no backward pass in the text tower", (FIXED_MASK,)),
        ("contrastive text clean: a second text pass", ("--config.text.contrastive=clean",)),
        ("no decoder, no masked words", NO_DECODER),
        ("layers unrolled" if cpu else "layers in a loop", (LAYERS,)),
        ("remat full", ("--config.model.remat=full",)),
    ]
    if cpu:
        return [*changes, ("bfloat16", ("--config.model.dtype=bfloat16",))]
    return [
        *changes,
        ("remat none", ("--config.model.remat=none",)),
        ("text of 77 tokens", ("--config.text.length=77",)),
        ("decoder of one layer", ("--config.model.decoder_layers=1",)),
        (f"batch in {pieces} pieces", (f"--config.train.accumulate={pieces}",)),
        (f"loss in chunks of {chunk}", (f"--config.train.loss_chunk={chunk}",)),
        ("attention by XLA", ("--config.model.attention=xla",)),
        ("float32", ("--config.model.dtype=float32",)),
    ]


class Runner:
    """Measures cells, and writes the results after each cell."""

    def __init__(self, args: argparse.Namespace, environment: dict[str, str]):
        self.args, self.environment = args, environment
        self.kind = "ablation" if args.ablate else "grid"
        self.name = args.name or self.device()
        self.path = args.out / f"step_{self.name}{'_ablation' if args.ablate else ''}.json"
        self.cells: list[dict[str, Any]] = []
        if self.path.is_file() and not args.again:
            self.cells = json.loads(self.path.read_text(encoding="utf-8"))["cells"]

    def device(self) -> str:
        """The device's name as part of a file name."""
        code = "import jax; print(jax.devices()[0].device_kind)"
        found = subprocess.run([sys.executable, "-c", code], env=self.environment, capture_output=True, text=True)
        if found.returncode:
            sys.exit(found.stderr)
        return re.sub(r"[^a-z0-9]+", "_", found.stdout.strip().lower())

    def cell(
        self, model: str, keep: float, batch: int, first: int = 0, change: str = "", words: tuple[str, ...] = ()
    ) -> int | None:
        """Measure one cell in the first of WAYS, from `first` on, that fits; returns which, or None.

        A cell of an ablation (`change`) is measured as it is.
        """
        key = {"model": model, "keep_ratio": keep, "batch": batch, "change": change, "also": self.args.overrides}
        held = next((cell for cell in self.cells if cell["key"] == key), None)
        if held is not None:
            return held["way"]
        found: dict[str, Any] = {"key": key, "way": None}
        for number, (remat, pieces) in enumerate(WAYS):
            if number < first or batch % pieces:
                continue
            way = [] if change else [f"--config.model.remat={remat}", f"--config.train.accumulate={pieces}"]
            result = self.measure(model, keep, batch, [*way, *self.args.overrides, *words])
            found |= {"result": result, "way": None if "error" in result else number}
            if change or "out of memory" not in result.get("error", ""):
                break
        if "result" not in found:
            return None
        self.cells.append(found)
        self.write()
        print(line(found), flush=True)
        return found["way"]

    def measure(self, model: str, keep: float, batch: int, words: list[str]) -> dict[str, Any]:
        """The result of `harvest bench step`, or {"error": its message}."""
        start = ["-c", OTHERWISE] if LAYERS in words else ["-m", "harvest_jax"]
        command = [sys.executable, *start, "bench", "step", "--config", CONFIG, "--json"]
        steps = self.args.steps or (max(1, round(0.5 / keep)) if self.args.cpu else 20)
        command += ["--batch", str(batch), "--keep", str(keep), "--steps", str(steps)]
        command += [f"--config.model.size={model}", *(word for word in words if word != LAYERS)]
        try:
            done = subprocess.run(
                command, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=self.args.timeout
            )
        except subprocess.TimeoutExpired:
            return {"error": f"took more than {self.args.timeout:.0f} s"}
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1])
        said = ROW.findall(done.stderr)
        return {"error": said[-1] if said else f"ended with {done.returncode}: {done.stderr.strip()[-300:]}"}

    def write(self) -> None:
        """JSON, table and plot of all cells so far."""
        self.args.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"kind": self.kind, "cells": self.cells}, indent=1)
        self.path.write_text(text + "\n", encoding="utf-8")
        self.path.with_suffix(".md").write_text(table(self.cells), encoding="utf-8")
        (plot_ablation if self.args.ablate else plot_grid)(self.cells, self.path.with_suffix(".png"))


COLUMNS = ("clips/s", "ms p50", "ms p95", "GFLOP a clip", "again", "MFU %", "GiB", "remat", "pieces", "compile s")


def figures(result: dict[str, Any]) -> list[str]:
    """One cell's columns."""
    return [
        f"{result['clips_per_s']:.4g}",
        f"{result['step_ms_p50']:.1f}",
        f"{result['step_ms_p95']:.1f}",
        f"{1e3 * result['tflop_per_clip']:.4g}",
        f"{1e3 * result['tflop_recomputed']:.3g}",
        f"{100 * result['mfu']:.1f}",
        f"{result['peak_bytes'] / 2**30:.2f}",
        result["remat"],
        str(result["accumulate"]),
        f"{result['compile_s']:.0f}",
    ]


def line(cell: dict[str, Any]) -> str:
    """A row of the table."""
    key, result = cell["key"], cell["result"]
    what = [key["model"], f"{key['keep_ratio']:g}", str(key["batch"]), key["change"]]
    columns = [f"({result['error']})", *[""] * (len(COLUMNS) - 1)] if "error" in result else figures(result)
    return f"| {' | '.join([*what, *columns])} |"


def table(cells: list[dict[str, Any]]) -> str:
    """The results as Markdown; what all rows have in common stands above the table."""
    heads = ["model", "keep", "batch", "change", *COLUMNS]
    results = [cell["result"] for cell in cells if "error" not in cell["result"]]
    about = ""
    if results:
        first = results[0]  # of an ablation the step as it is
        rates = sorted(result["matmul_tflops"] for result in results if result["dtype"] == first["dtype"])
        about = (
            f"{first['devices']} x {first['device']}, {first['host_cores']} host cores; {first['frames']} frames, "
            f"{first['text_tokens']} text tokens, {first['dtype']}, attention {first['attention']}; measured rate of "
            f"large {first['dtype']} matrix products {rates[0]:.4g} to {rates[-1]:.4g} TFLOP/s (each cell's MFU refers "
            f"to its own); memory as {first['peak_bytes_from']} says; jax {first['versions']['jax']}, "
            f"{first['versions']['backend']}.\n\n"
        )
    rule = f"|{'|'.join([' --- '] * 4 + [' ---: '] * len(COLUMNS))}|"
    body = "\n".join([f"| {' | '.join(heads)} |", rule, *map(line, cells)]) + "\n"
    return about + body + "".join(f"\n{sentence}\n" for sentence in savings(cells))


def savings(cells: list[dict[str, Any]]) -> list[str]:
    """One sentence for each cell with all patches: how much faster the cells with fewer patches are."""
    times = {
        (cell["key"]["model"], cell["key"]["batch"], cell["key"]["keep_ratio"]): cell["result"]["step_ms_p50"]
        for cell in cells
        if "error" not in cell["result"] and not cell["key"]["change"]
    }
    return [
        f"{model}, batch {batch}: a step with all patches takes {whole / ms:.1f} times one with {keep:g} of them "
        "(each in the way that it fits)."
        for (model, batch, keep), ms in times.items()
        if keep < 1 and (whole := times.get((model, batch, 1.0)))
    ]


COLOURS = ("#0f766e", "#c2570c", "#4f46a5", "#a21c5d", "#5b6b7b", "#8a6d00")


def plot_grid(cells: list[dict[str, Any]], path: Path) -> None:
    """Plot clips/s and MFU over the batch, or over the share of patches kept if there is one batch only."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    cells = [cell for cell in cells if "error" not in cell["result"]]
    if not cells:
        return
    models = list(dict.fromkeys(cell["key"]["model"] for cell in cells))
    by_batch = len({cell["key"]["batch"] for cell in cells}) > 1
    across, series = ("batch", "keep_ratio") if by_batch else ("keep_ratio", "batch")
    figure = Figure(figsize=(9, 3.4 * len(models)), layout="constrained")
    axes = figure.subplots(len(models), 2, squeeze=False)
    for model, row in zip(models, axes, strict=True):
        mine = [cell for cell in cells if cell["key"]["model"] == model]
        for number, value in enumerate(sorted({cell["key"][series] for cell in mine})):
            points = sorted((cell["key"][across], cell["result"]) for cell in mine if cell["key"][series] == value)
            where = [point[0] for point in points]
            label = f"{100 * value:g} % of the patches" if by_batch else f"batch {value}"
            style = {"marker": "o", "markersize": 4, "color": COLOURS[number % len(COLOURS)], "label": label}
            row[0].plot(where, [result["clips_per_s"] for _, result in points], **style)
            row[1].plot(where, [100 * result["mfu"] for _, result in points], **style)
        ticks = sorted({cell["key"][across] for cell in mine})
        for axis, title in zip(row, ("clips a second", "MFU, % of the measured matrix product"), strict=True):
            axis.set_title(f"{model}: {title}", fontsize=10, loc="left")
            axis.set_xscale("log")
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.minorticks_off()
            axis.set_xlabel("clips a step" if by_batch else "share of patches kept")
            axis.grid(color="#e3e8ee")
            axis.spines[["top", "right"]].set_visible(False)
        row[0].set_yscale("log")
        row[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        row[0].yaxis.set_major_formatter("{x:g}")
        row[0].yaxis.set_minor_formatter("")
        row[1].set_ylim(0, 100)
        row[1].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


def plot_ablation(cells: list[dict[str, Any]], path: Path) -> None:
    """Plot the milliseconds of a step with each change, and of the unchanged step."""
    from matplotlib.figure import Figure

    cells = [cell for cell in cells if "error" not in cell["result"]]
    if not cells:
        return
    names = [cell["key"]["change"] for cell in cells]
    times = [cell["result"]["step_ms_p50"] for cell in cells]
    figure = Figure(figsize=(9, 0.6 + 0.32 * len(cells)), layout="constrained")
    axis = figure.subplots()
    axis.barh(names, times, color=[COLOURS[0], *[COLOURS[4]] * (len(cells) - 1)])
    axis.axvline(times[0], color=COLOURS[0], linewidth=1)
    for place, value in enumerate(times):
        change = "" if place == 0 else f"  ({100 * (value / times[0] - 1):+.0f} %)"
        axis.text(value, place, f" {value:.0f}{change}", va="center", fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.2 * max(times))
    axis.set_xlabel("ms a step (p50)")
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
