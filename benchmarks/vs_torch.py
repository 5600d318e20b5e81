r"""Our training step and the same one in PyTorch (`torch_step.py`), taking turns on one device in one run.

    python benchmarks/vs_torch.py --size B/16 --batch 8 --keep 0.1 --dtype float32 --device cpu
    python benchmarks/vs_torch.py --size B/16 --batch 1024 --dtype bfloat16 --steps 60 --device gpu
    python benchmarks/vs_torch.py --size B/16 --batch 4096 --device gpu --apart --set model.remat=dots

Arms (`--arms` picks some):

    harvest        ours: `train/program.py`'s jitted step, as `harvest train` runs it; gets the kept patches, because
                   dropping happens in the loader
    torch          torch.compile; gets all patches and drops after the patch embedding, as the ancestors do
    torch_early    the same, but gathers the kept pixels before the embedding (what that design choice is worth)
    torch_eager    as `torch`, without torch.compile

Every arm is a process of its own with the same parameters (ours, handed over in files) and the same batch, which lies
on the device; how clips get there is not timed. The processes live through the whole run and stand still while another
one steps: one library's threads or memory never meet the other's. Blocks of steps alternate, forwards and backwards
(ABC CBA ...), so that a drift of the machine hits all; each begins with one step that is not timed. `--apart` starts an
arm's process for each block and ends it after (compilation caches on disk make that bearable): for batches of which two
do not fit into the device's memory.

A block's time is from the first step's call until its last step is done, by the host's clock; nothing waits in
between. The first step's loss is compared over the arms, and the run fails where they compute different things.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
    parser.add_argument("--block", type=int, default=2, help="timed steps of an arm before the next one's turn")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="cores that may be used")
    parser.add_argument("--arms", default="harvest,torch,torch_early", help=f"of {','.join(ARMS)}, joined by commas")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="more of the config, as ours")
    parser.add_argument("--apart", action="store_true", help="one process at a time")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/vs_torch_SIZE_DTYPE_DEVICE.json")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)  # the two below start an arm's process
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.arm:
        serve(args)
        return
    arms = args.arms.split(",")
    if unknown := set(arms) - set(ARMS):
        parser.error(f"--arms: {', '.join(sorted(unknown))} is none of {', '.join(ARMS)}")
    with tempfile.TemporaryDirectory(prefix="vs_torch_") as work:
        args.work = Path(work)
        result = compare(args, arms)
    print(table(result))
    name = f"vs_torch_{args.size.replace('/', '')}_{args.dtype}_{args.device}.json"
    target = args.json or ROOT / "benchmarks/results" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {target}", file=sys.stderr)


# ---- the process that gives the turns


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


# ---- an arm's process


def serve(args: argparse.Namespace) -> None:
    """Set up one arm, then run blocks as asked, until there is nobody to ask."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])  # before a library counts the cores
    began = time.perf_counter()
    step, wait, peak, facts = (ours if args.arm == "harvest" else theirs)(args)
    facts["first_loss"] = wait(step())
    wait(step())
    print(json.dumps(facts | {"ready_s": time.perf_counter() - began}), file=out, flush=True)
    forget_peak()
    for line in sys.stdin:
        steps = json.loads(line)["run"]
        wait(step())  # after the others' turns nothing of ours is in the caches
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            last = step()
        wait(last)
        figures = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "steps": steps}
        print(json.dumps(figures | {"peak_bytes": peak()}), file=out, flush=True)


Set = tuple[Callable[[], Any], Callable[[Any], float], Callable[[], int], dict[str, Any]]


def checked_config(args: argparse.Namespace) -> Any:
    """The run's config, of both sides."""
    from harvest_jax.config import files as config_files
    from harvest_jax.config import run as run_config

    overrides = [f"model.size={args.size}", f"model.num_frames={args.frames}", f"model.keep_ratio={args.keep}"]
    overrides += [f"model.dtype={args.dtype}", f"train.batch_size={args.batch}", "train.steps=100000"]
    return run_config.load(str(config_files.config_file("base.py")), [*overrides, *args.set])


def ours(args: argparse.Namespace) -> Set:
    """The step that `harvest train` runs, and the files that the other arms start from."""
    import flax
    import jax
    import jaxlib
    from flax import traverse_util

    from harvest_jax.bench.flops import step_flops
    from harvest_jax.train import mesh as meshes
    from harvest_jax.train.freeze import partition
    from harvest_jax.train.initialise import parameters_at_random
    from harvest_jax.train.program import random_batch, train_program

    run = checked_config(args)
    device = jax.devices()[0]
    program = train_program(run, [device])
    host = random_batch(run, program.config)
    batch = meshes.put_batch(host, program.mesh)
    params = jax.tree.map(np.asarray, jax.jit(lambda: parameters_at_random(run, program.model))())
    if not (args.work / "batch.npz").exists():
        np.savez(args.work / "params.npz", **traverse_util.flatten_dict(params, sep="/"))
        np.savez(args.work / "batch.npz", **host)
    trained, frozen = (
        jax.device_put(part, meshes.state_shardings(part, program.mesh))
        for part in partition(params, run.train.lr_multipliers)
    )
    init = jax.jit(program.step().init_state, out_shardings=program.state_shardings)
    compiled = program.jitted().lower(program.state, program.frozen, program.batch()).compile()
    state = init(trained)
    del params, trained

    def step() -> Any:
        nonlocal state
        state, metrics = compiled(state, frozen, batch)
        return metrics["loss"]

    def peak() -> int:
        stats = device.memory_stats() or {}
        return int(stats.get("peak_bytes_in_use", resident_peak()))

    facts = {
        "device": device.device_kind if args.device == "gpu" else cpu_name(),
        "versions": {"jax": jax.__version__, "jaxlib": jaxlib.__version__, "flax": flax.__version__},
        "flops_per_clip": step_flops(run, program.config)["total"],
        "batch_bytes": sum(array.nbytes for array in host.values()),
        "note": f"attention {program.model.attention}" if args.device == "gpu" else "",
    }
    return step, float, peak, facts


def theirs(args: argparse.Namespace) -> Set:
    """The step of `torch_step.py`."""
    import torch

    from benchmarks import torch_step
    from harvest_jax.model.config import harvest_config

    torch.set_num_threads(args.threads)
    device = "cuda" if args.device == "gpu" else "cpu"
    if device == "cuda":  # XLA multiplies float32 in TF32 on these GPUs too
        torch.set_float32_matmul_precision("high")
    run = checked_config(args)
    config = harvest_config(args.size, args.frames, run.model.decoder_layers)
    with np.load(args.work / "batch.npz") as file:
        batch = {name: file[name] for name in file.files}
    kept, clips = batch["patches"], len(batch["patches"])
    total = config.video.num_frames * config.video.cells_per_frame
    whole = np.random.default_rng(1).integers(0, 256, (clips, total, config.video.patch_dim), dtype=np.uint8)
    whole[np.arange(clips)[:, None], batch["positions"]] = kept
    batch["patches"] = whole
    with torch.device(device):
        model = torch_step.HarvestLoss(run, config, "before" if args.arm == "torch_early" else "after")
    with np.load(args.work / "params.npz") as params:
        torch_step.load_ours(model, params)
    on_device = torch_step.tensors(batch, device)
    steps = torch_step.TorchStep(model, compiled=args.arm != "torch_eager")
    note = "" if steps.compiled else "eager"
    if steps.compiled:
        try:
            steps(on_device)
        except Exception as error:  # whatever the compiler or its toolchain trips over
            print(f"{args.arm}: torch.compile failed, running without it: {error}", file=sys.stderr)
            note = f"eager: torch.compile failed with {type(error).__name__}"
            steps.loss, steps.compiled = model, False
        steps.step = 0  # the rate of the first step is 0: it changed nothing

    def wait(loss: Any) -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return loss.item()

    def peak() -> int:
        return torch.cuda.max_memory_allocated() if device == "cuda" else resident_peak()

    facts = {
        "device": torch.cuda.get_device_name() if device == "cuda" else cpu_name(),
        "versions": {"torch": torch.__version__},
        "batch_bytes": sum(array.nbytes for array in batch.values()),
        "note": note,
    }
    return lambda: steps(on_device), wait, peak, facts


def resident_peak() -> int:
    """Bytes of this process that were resident at most since `forget_peak` (Linux) or since it began."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def forget_peak() -> None:
    """Peak resident memory from here on: setting up takes more than stepping does."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def cpu_name() -> str:
    """As the kernel calls it, with the instructions that matter for products of matrices."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in found.get("flags", "").split()]
    return f"{found.get('model name', platform.machine()).strip()} ({', '.join(flags)})"


if __name__ == "__main__":
    main()
