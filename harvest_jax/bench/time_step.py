"""The training step of `harvest train`, timed with random parameters and random clips."""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np

from harvest_jax.bench.memory_advice import memory_advice
from harvest_jax.config.run import RunConfig
from harvest_jax.errors import ConfigError
from harvest_jax.machine import available_cores, available_memory
from harvest_jax.train import mesh as meshes
from harvest_jax.train.flops import step_flops
from harvest_jax.train.freeze import Tree
from harvest_jax.train.initial_state import random_state
from harvest_jax.train.matmul import matmul_rate
from harvest_jax.train.program import TrainProgram, random_batch, train_program
from harvest_jax.train.step import TrainState
from harvest_jax.version import __version__

WARM_UP = 1  # steps; the first one loads kernels
PROFILED = 3  # steps of a trace
MATMUL_SECONDS = 2.0  # to measure the rate of matrix products that the MFU refers to


def bench_step(run: RunConfig, steps: int, profile: Path | None = None) -> dict[str, Any]:
    """Compile a run's step for the available devices and time it.

    The batch is on the devices before the timing starts and is the same in every step. For the percentiles `steps`
    steps are timed one by one, the host waiting for the end of each. For the throughput as many are enqueued without
    waiting, as in training.

    Args:
      run: the checked config; `data`, `init_from`'s weights and the schedule do not matter.
      steps: number of steps of each of the two timings.
      profile: folder for a `jax.profiler` trace of three more steps.

    Returns:
      what `harvest bench step --json` prints.

    Raises:
      ConfigError: the step does not fit the memory, or the devices cannot be divided as the config asks.
    """
    if jax.process_count() > 1:
        raise ConfigError("harvest bench step measures the devices of one process; start it in one")
    program = train_program(run)
    with _memory_errors(run):
        compiled, seconds = _compile(program)
        needed = _compiled_bytes(compiled) * len(jax.local_devices())
        if jax.default_backend() == "cpu" and needed > available_memory():  # Linux would kill it without a message
            raise ConfigError(
                _too_large(run, f"the step needs {needed / 1e9:.1f} GB, {available_memory() / 1e9:.1f} are free")
            )
        state, frozen = random_state(program)
        batch = meshes.put_batch(random_batch(run, program.config), program.mesh)
        state, metrics = _steps(compiled, state, frozen, batch, WARM_UP)
        times = []
        for _ in range(steps):
            began = time.perf_counter()
            state, metrics = _steps(compiled, state, frozen, batch, 1)
            times.append(time.perf_counter() - began)
        began, used = time.perf_counter(), time.process_time()
        state, metrics = _steps(compiled, state, frozen, batch, steps)
        elapsed, used = time.perf_counter() - began, time.process_time() - used
        with jax.profiler.trace(str(profile)) if profile else nullcontext():
            if profile:
                state, metrics = _steps(compiled, state, frozen, batch, PROFILED)
        loss = float(metrics["loss"])
        peak, source = _peak_bytes(compiled)
        del state, frozen, batch, metrics, compiled
        matmul = matmul_rate(run.model.dtype, MATMUL_SECONDS)
    flops = step_flops(run, program.config)
    rate = steps * run.train.batch_size / elapsed
    return _about(program) | {
        "clips_per_s": rate,
        "step_ms_p50": 1e3 * float(np.percentile(times, 50)),
        "step_ms_p95": 1e3 * float(np.percentile(times, 95)),
        "step_ms_unblocked": 1e3 * elapsed / steps,
        "host_cpu_ms": 1e3 * used / steps,  # of all cores; on a CPU independent of other programs
        "steps": steps,
        "tflop_per_clip": flops["total"] / 1e12,
        "tflop_parts": {name: flops[name] / 1e12 for name in ("video", "text", "decoder", "contrastive")},
        "tflop_recomputed": flops["recomputed"] / 1e12,
        "mfu": flops["total"] * rate / (matmul * program.mesh.size),
        "matmul_tflops": matmul / 1e12,
        "peak_bytes": peak,
        "peak_bytes_from": source,
        **seconds,
        "loss": loss,
    }


def _compile(program: TrainProgram) -> tuple[Any, dict[str, float]]:
    """The compiled step, before its arguments are allocated, and the seconds of tracing and of XLA."""
    began = time.perf_counter()
    lowered = program.jitted().lower(program.state, program.frozen, program.batch())
    traced = time.perf_counter()
    compiled = lowered.compile()
    return compiled, {"trace_s": traced - began, "compile_s": time.perf_counter() - traced}


def _steps(compiled: Any, state: TrainState, frozen: Tree, batch: Any, count: int) -> tuple[TrainState, Any]:
    """`count` steps, enqueued without waiting; returns when the last is done."""
    for _ in range(count):
        state, metrics = compiled(state, frozen, batch)
    jax.block_until_ready((state, metrics))
    return state, metrics


def _about(program: TrainProgram) -> dict[str, Any]:
    """What was measured, on which devices, with which versions."""
    run, config, batch = program.run, program.config, program.batch()
    device = program.mesh.devices.flat[0]
    return {
        "device": device.device_kind,
        "devices": program.mesh.size,
        "host_cores": available_cores(),
        "model": config.name,
        "batch": run.train.batch_size,
        "keep_ratio": run.model.keep_ratio,
        "frames": config.video.num_frames,
        "patches": config.video.num_frames * config.video.cells_per_frame,
        "tokens": batch["patches"].shape[1] + 1,  # of the video tower: kept patches and the class token
        "text_tokens": batch["ids"].shape[1],
        "dtype": run.model.dtype,
        "attention": program.model.attention,
        "remat": run.model.remat,
        "accumulate": run.train.accumulate,
        "loss_chunk": run.train.loss_chunk,
        "mesh": dict(program.mesh.shape),
        "versions": software_versions(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def software_versions() -> dict[str, str]:
    """Versions of the software that the figures depend on."""
    return {
        "harvest_jax": __version__,
        "jax": jax.__version__,
        "jaxlib": jax.lib.__version__,
        "python": platform.python_version(),
        "backend": jax.devices()[0].client.platform_version.splitlines()[0],
    }


def _compiled_bytes(compiled: Any) -> int:
    """Arguments, results and temporary arrays of a program on one device; donated arrays count once."""
    sizes = compiled.memory_analysis()
    return (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        - sizes.alias_size_in_bytes
        + sizes.temp_size_in_bytes
        + sizes.generated_code_size_in_bytes
    )


def _peak_bytes(compiled: Any) -> tuple[int, str]:
    """Peak bytes in use on a device, and their source: the allocator, or the compiler where it has no such figure."""
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    known = [peak for peak in peaks if peak]
    return (max(known), "device memory_stats") if known else (_compiled_bytes(compiled), "compiled memory_analysis")


@contextmanager
def _memory_errors(run: RunConfig) -> Iterator[None]:
    """Turn XLA's errors about memory into one line that says what to change."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        words = str(error)
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in words or "out of memory" in words.lower():
            raise ConfigError(
                _too_large(run, words.splitlines()[0][:120] if words else "no host memory is left")
            ) from error
        raise


def _too_large(run: RunConfig, reason: str) -> str:
    ways = ["a smaller --batch", *(f"--config.{one}" for one in memory_advice(run, jax.device_count()))]
    return (
        f"out of memory with {run.model.size}, train.batch_size={run.train.batch_size}, "
        f"model.keep_ratio={run.model.keep_ratio} ({reason}): try {' or '.join(ways)}"
    )
