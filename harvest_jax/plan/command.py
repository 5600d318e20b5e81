"""`harvest plan`: what the training step takes of hardware that is not here."""

import argparse
import dataclasses
import importlib.metadata
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from harvest_jax.config import run as run_config
from harvest_jax.config.run import RunConfig
from harvest_jax.errors import ConfigError
from harvest_jax.plan.analytic import analytic_plan
from harvest_jax.plan.chips import GIB
from harvest_jax.plan.collectives import by_kind
from harvest_jax.plan.compiled import OutOfMemory, Plan, compile_plan
from harvest_jax.plan.estimate import estimate, longest_kernels
from harvest_jax.plan.hardware import EXAMPLES, Topology, devices, parse_topology
from harvest_jax.plan.measured import Calibration, read_measured
from harvest_jax.plan.report import lines
from harvest_jax.plan.search import CLOSE, largest_batch
from harvest_jax.train.program import TrainProgram, train_program

MOST = 2**20  # clips; no larger batch is searched
NVIDIA = ("jax-cuda13-pjrt", "jax-cuda12-pjrt", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12")
VERSIONS = ("harvest_jax", "jax", "jaxlib", "libtpu", *NVIDIA)
HOW = f"doubling or halving from the config's batch, then bisection until 1/{CLOSE} more does not fit"

_EPILOG = f"""The step is the one that `harvest train` runs. It is compiled: for a TPU slice on any machine with libtpu
(the extra harvest_jax[plan]), for GPUs on any with JAX's CUDA plugin (harvest_jax[gpu] or [gpu-cuda13]; without it the
step is modelled from the traced program), for cpu:N with N virtual devices. Memory, collectives, FLOPs and kernels are
those of the compiled program; times are estimates from public figures.

  harvest plan --config configs/harvest_b16.py --topology v5e:16x16 --config.train.batch_size=32768
  harvest plan --config configs/harvest_l14.py --topology v5p:4x4x4 --search --json
  harvest plan --config configs/harvest_b16.py --topology h200:8 --measured bench.json

Topologies: {EXAMPLES}.
The last line of --json is one JSON object: devices, per_device_bytes, fits, collectives, memory, flops, estimate,
kernels (where the time goes) and what was planned with which versions. A plan that does not fit ends with exit code 2,
except with --search."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `harvest plan`."""
    parser.epilog = _EPILOG
    parser.usage = (
        "harvest plan --config FILE[:ARGUMENT] --topology NAME [--search] [--json] [--config.FIELD=VALUE ...]"
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="config file; its fields: configs/base.py")
    parser.add_argument("--topology", required=True, metavar="NAME", help="hardware, such as v5e:16x16 or h200:8")
    parser.add_argument("--search", action="store_true", help="find the largest global batch that fits")
    parser.add_argument(
        "--measured", type=Path, metavar="FILE", help="GPUs: a result of `harvest bench step --json` to scale by"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(overrides=[])  # filled with what follows --config.


def run(args: argparse.Namespace) -> int:
    """The command; see `add_arguments`."""
    checked = run_config.load(args.config, args.overrides)
    topology = parse_topology(args.topology)
    found = {"config": args.config, "overrides": list(args.overrides)}
    found |= plan(checked, topology, search=args.search, measured=args.measured)
    print(json.dumps(found) if args.json else lines(found), flush=True)
    if found["fits"] is False and not found.get("largest_batch", {}).get("batch"):
        raise ConfigError(_too_large(checked, found))
    return 0


def plan(checked: RunConfig, topology: Topology, search: bool = False, measured: Path | None = None) -> dict[str, Any]:
    """What `harvest plan --json` prints.

    Args:
      checked: the config.
      topology: the hardware.
      search: look for the largest batch that fits, too.
      measured: a result of `harvest bench step` on such a GPU.

    Raises:
      ConfigError: libtpu is missing, the topology is unknown, the devices or the batch cannot be divided as asked,
        `measured` is of another chip.
    """
    chip = topology.chip
    if search and chip is None:
        raise ConfigError(f"--search needs a memory that has an end; {topology.name} is this machine's own")
    if measured and (chip is None or chip.maker != "gpu"):
        raise ConfigError(f"--measured scales plans for GPUs; {topology.name} is none")
    calibration = Calibration()
    if measured and chip:  # first: JAX's virtual devices are counted when it starts, and it may want more of them
        there = dataclasses.replace(topology, shape=(read_measured(measured, chip).devices,))
        devices(max(there, topology, key=lambda one: one.count))
        calibration = calibrate(measured, topology)
    where = devices(topology)
    program = _program(checked, topology, where)
    first = _stage(program, topology, calibration, all_patches=False)
    found = _about(program, topology) | {"calibration": calibration.to_dict()} | first
    if checked.train.unmasked_steps:
        found["all_patches"] = _stage(program, topology, calibration, all_patches=True)
        found["fits"] = found["fits"] and found["all_patches"]["fits"]
    if search:
        found["largest_batch"] = _search(checked, topology, where, calibration, found["fits"])
    return found


def calibrate(path: Path, topology: Topology) -> Calibration:
    """Measured over estimated, of the run that was measured."""
    assert topology.chip is not None
    measured = read_measured(path, topology.chip)
    there = dataclasses.replace(topology, shape=(measured.devices,))
    found = _plan(_program(measured.run, there, devices(there)), there, all_patches=False)
    times = estimate(found, there, measured.run.train.batch_size)
    assert times is not None
    return Calibration(measured.step_ms / times.step_ms, measured.peak_bytes / found.memory.peak, measured.path)


def _program(checked: RunConfig, topology: Topology, where: list[Any]) -> TrainProgram:
    if topology.modelled:  # shapes are traced on a CPU, without cuDNN
        checked = dataclasses.replace(checked, model=dataclasses.replace(checked.model, attention="auto"))
    return train_program(checked, where)


def _plan(program: TrainProgram, topology: Topology, all_patches: bool) -> Plan:
    if topology.modelled:
        return analytic_plan(program, all_patches)
    begun = time.perf_counter()
    batch = program.run.train.batch_size
    print(f"compiling batch {batch} for {topology.name}", end=" ... ", file=sys.stderr, flush=True)
    try:
        return compile_plan(program, all_patches)
    finally:
        print(f"{time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)


def _stage(program: TrainProgram, topology: Topology, calibration: Calibration, all_patches: bool) -> dict[str, Any]:
    """One of the two programs of a run."""
    chip = topology.chip
    try:
        found = _plan(program, topology, all_patches)
    except OutOfMemory as error:
        nothing: dict[str, Any] = {
            "memory": None,
            "flops": None,
            "bytes_accessed": None,
            "estimate": None,
            "kernels": [],
        }
        return {"per_device_bytes": error.used, "fits": False, **nothing, "collectives": [], "collective_bytes": {}}
    peak = round(calibration.memory * found.memory.peak)
    times = estimate(found, topology, program.run.train.batch_size, calibration.time)
    return {
        "per_device_bytes": peak,
        "fits": None if chip is None else chip.maker == "tpu" or peak <= chip.usable,
        "memory": found.memory.to_dict(),
        "flops": found.cost.flops,
        "bytes_accessed": found.cost.bytes,
        "estimate": times.to_dict() if times else None,
        "kernels": longest_kernels(found, topology, calibration.time),
        "collectives": [one.to_dict() for one in found.collectives],
        "collective_bytes": by_kind(found.collectives),
    }


def _about(program: TrainProgram, topology: Topology) -> dict[str, Any]:
    """What is planned, for what, with which versions."""
    run, chip = program.run, topology.chip
    return {
        "topology": topology.name,
        "chip": chip.name if chip else "CPU",
        "devices": program.mesh.size,
        "mesh": dict(program.mesh.shape),
        "method": "analytic" if topology.modelled else "compiled",
        "model": program.config.name,
        "batch": run.train.batch_size,
        "tokens": 1 + program.batch()["patches"].shape[1],  # of the video tower: kept patches and the class token
        "keep_ratio": run.model.keep_ratio,
        "frames": run.model.num_frames,
        "dtype": run.model.dtype,
        "remat": run.model.remat,
        "accumulate": run.train.accumulate,
        "loss_chunk": run.train.loss_chunk,
        "chip_bytes": chip.memory if chip else None,
        "usable_bytes": chip.usable if chip else None,
        "versions": {name: _version(name) for name in VERSIONS},
    }


def _search(
    checked: RunConfig, topology: Topology, where: list[Any], calibration: Calibration, known: bool
) -> dict[str, Any]:
    """The largest batch that fits in all stages, and what was tried."""
    train = checked.train
    stages = (False, True) if train.unmasked_steps else (False,)
    pieces = math.lcm(train.accumulate, train.unmasked_accumulate if train.unmasked_steps else 1)
    unit = math.lcm(len(where) * pieces, train.loss_chunk or 1)
    start = train.batch_size // unit * unit or unit
    tried = {start: known} if start == train.batch_size else {}

    def fits(size: int) -> bool:
        if size not in tried:
            sized = dataclasses.replace(checked, train=dataclasses.replace(train, batch_size=size))
            program = _program(sized, topology, where)
            tried[size] = all(_stage(program, topology, calibration, stage)["fits"] for stage in stages)
        return tried[size]

    best = largest_batch(fits, start, unit, MOST // unit * unit or unit)
    return {"batch": best, "unit": unit, "how": HOW, "tried": dict(sorted(tried.items()))}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _too_large(checked: RunConfig, found: dict[str, Any]) -> str:
    """By how much it does not fit, and what to change."""
    stages = [found, *([found["all_patches"]] if "all_patches" in found else [])]
    used, limit = max(stage["per_device_bytes"] for stage in stages), found["usable_bytes"]
    size = f"{used / GIB:.2f} GiB of {limit / GIB:.2f} GiB a device, {(used - limit) / GIB:.2f} GiB too much"
    train, model = checked.train, checked.model
    ways = ["a smaller train.batch_size (--search finds the largest)", f"train.accumulate={2 * train.accumulate}"]
    ways += [f"model.remat={'dots' if model.remat == 'none' else 'full'}"] if model.remat != "full" else []
    ways += ["train.loss_chunk=1024"] if not train.loss_chunk and train.batch_size > 1024 else []
    reason = size if used else "the compiler ran out of memory"
    return f"does not fit {found['topology']}: {reason}: try {' or '.join(ways)}"
