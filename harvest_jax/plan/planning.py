"""What the training step takes of hardware that is not here: memory, arithmetic, network, time."""

import dataclasses
import importlib.metadata
import math
import sys
import time
from pathlib import Path
from typing import Any

from harvest_jax.config.run import RunConfig
from harvest_jax.errors import ConfigError
from harvest_jax.plan.analytic import analytic_resources
from harvest_jax.plan.batch_size import CLOSE, largest_batch
from harvest_jax.plan.collectives import between_slices, by_kind
from harvest_jax.plan.compiled import OutOfMemory, compiled_resources
from harvest_jax.plan.estimate import SHORTEST_MS, estimate, longest_kernels
from harvest_jax.plan.measured import Calibration, read_measured
from harvest_jax.plan.resources import StepResources
from harvest_jax.plan.topology import Topology, devices
from harvest_jax.train.program import TrainProgram, train_program

MOST = 2**20  # clips; no larger batch is tried
NVIDIA = ("jax-cuda13-pjrt", "jax-cuda12-pjrt", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12")
VERSIONS = ("harvest_jax", "jax", "jaxlib", "libtpu", *NVIDIA)
HOW = f"doubling or halving from the config's batch, then bisection until 1/{CLOSE} more does not fit"


def plan(checked: RunConfig, topology: Topology, search: bool = False, measured: Path | None = None) -> dict[str, Any]:
    """What `harvest plan --json` prints.

    Args:
      checked: the config.
      topology: the hardware.
      search: also find the largest batch that fits.
      measured: a result of `harvest bench step` on such a GPU.

    Raises:
      ConfigError: libtpu is missing, the topology is unknown, the devices or the batch cannot be divided as asked,
        `measured` is of another chip.
    """
    chip = topology.chip
    if search and chip is None:
        raise ConfigError(f"--search needs devices of known memory; {topology.name} is this machine's")
    if measured and (chip is None or chip.maker != "gpu"):
        raise ConfigError(f"--measured scales plans for GPUs; {topology.name} is not a GPU")
    calibration = Calibration()
    if measured and chip:  # first, because JAX takes its number of virtual devices at its start and this may need more
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
    """The factors measured / estimated of the run that was measured."""
    assert topology.chip is not None
    measured = read_measured(path, topology.chip)
    there = dataclasses.replace(topology, shape=(measured.devices,))
    found = _resources(_program(measured.run, there, devices(there)), there, all_patches=False)
    times = estimate(found, there, measured.run.train.batch_size)
    assert times is not None
    return Calibration(measured.step_ms / times.step_ms, measured.peak_bytes / found.memory.peak, measured.path)


def _program(checked: RunConfig, topology: Topology, where: list[Any]) -> TrainProgram:
    if topology.modelled:  # traced on a CPU, which has no cuDNN
        checked = dataclasses.replace(checked, model=dataclasses.replace(checked.model, attention="auto"))
    return train_program(checked, where)


def _resources(program: TrainProgram, topology: Topology, all_patches: bool) -> StepResources:
    if topology.modelled:
        return analytic_resources(program, all_patches)
    begun = time.perf_counter()
    batch = program.run.train.batch_size
    print(f"compiling batch {batch} for {topology.name}", end=" ... ", file=sys.stderr, flush=True)
    try:
        found = compiled_resources(program, all_patches)
    finally:
        print(f"{time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    if loops := found.cost.unknown_loops:
        which = f"{len(loops)} loops of unknown length count once ({', '.join(loops[:3])})"
        print(f"warning: {which}: the time is underestimated", file=sys.stderr, flush=True)
    return found


def _stage(program: TrainProgram, topology: Topology, calibration: Calibration, all_patches: bool) -> dict[str, Any]:
    """The plan of one of a run's two programs, for JSON."""
    chip = topology.chip
    try:
        found = _resources(program, topology, all_patches)
    except OutOfMemory as error:
        nothing: dict[str, Any] = {
            "memory": None,
            "flops": None,
            "bytes_accessed": None,
            "estimate": None,
            "kernels": [],
            "collectives": [],
            "collective_bytes": {},
            "between_slices_bytes": {},
        }
        return {"per_device_bytes": error.used, "fits": False, **nothing}
    peak = round(calibration.memory * found.memory.peak)
    times = estimate(found, topology, program.run.train.batch_size, calibration.time)
    known = times is not None and times.step_ms >= SHORTEST_MS
    return {
        "per_device_bytes": peak,
        "fits": None if chip is None else chip.maker == "tpu" or peak <= chip.usable,
        "memory": found.memory.to_dict(),
        "flops": found.cost.flops,
        "bytes_accessed": found.cost.bytes,
        "estimate": times.to_dict() if times and known else None,
        "kernels": longest_kernels(found, topology, calibration.time) if known else [],
        "collectives": [one.to_dict() for one in found.collectives],
        "collective_bytes": by_kind(found.collectives),
        "between_slices_bytes": by_kind(between_slices(found.collectives)),
    }


def _about(program: TrainProgram, topology: Topology) -> dict[str, Any]:
    """What is planned, for which devices, with which versions."""
    run, chip = program.run, topology.chip
    return {
        "topology": topology.name,
        "slices": topology.slices,
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
    """The largest batch that fits in all stages, and the sizes tried."""
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
