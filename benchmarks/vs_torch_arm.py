"""One arm of `vs_torch.py`: a process that sets up a training step and runs blocks of it when asked."""

import argparse
import contextlib
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def serve(args: argparse.Namespace) -> None:
    """Set up the step, then run one block for each line of standard input, until it ends."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # keeps the output of libraries out of the answers
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])  # before a library counts the cores
    began = time.perf_counter()
    step, wait, peak, facts = (ours if args.arm == "harvest" else theirs)(args)
    facts["first_loss"] = wait(step())
    wait(step())
    print(json.dumps(facts | {"ready_s": time.perf_counter() - began}), file=out, flush=True)
    forget_peak()
    for line in sys.stdin:
        steps = json.loads(line)["run"]
        wait(step())  # not timed: the other arms have replaced the caches
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

    from harvest_jax.train import mesh as meshes
    from harvest_jax.train.flops import step_flops
    from harvest_jax.train.freeze import partition
    from harvest_jax.train.model_of_run import parameters_at_random
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
        except Exception as error:  # the compiler or its toolchain fails in many ways
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
    """The CPU as the kernel names it, with its instruction sets for matrix products."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in found.get("flags", "").split()]
    return f"{found.get('model name', platform.machine()).strip()} ({', '.join(flags)})"
