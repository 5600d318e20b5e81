"""The loader of `harvest train`, timed, and the rates that limit it on the same cores."""

import functools
import time
from typing import Any

import jax
import numpy as np

from harvest_jax.bench.loader_limits import limit_rates
from harvest_jax.bench.time_step import software_versions
from harvest_jax.config.run import RunConfig
from harvest_jax.errors import ConfigError
from harvest_jax.input.batches import num_workers
from harvest_jax.input.pipeline import training_batches
from harvest_jax.machine import available_cores, cpu_seconds, resident_bytes
from harvest_jax.train.mesh import make_mesh, put_batch
from harvest_jax.train.model_of_run import model_config, tokenizer_of_run
from harvest_jax.train.program import batch_shapes


def bench_loader(run: RunConfig, seconds: float) -> dict[str, Any]:
    """Time the loader: make batches as `harvest train` does and put them on the devices, without training on them.

    The limits (loader_limits.py) are measured on as many processes as the loader has cores, half of the time before it
    and half after it; for a mixture on its first set.

    Args:
      run: the checked config; `data`, the shapes of `model` and `text`, `train.batch_size` and `mesh` matter.
      seconds: of timing the loader; the limits take as long again.

    Returns:
      what `harvest bench loader --json` prints.

    Raises:
      ConfigError: no shards are named, or the devices or the batch cannot be divided as asked.
      DataError: the shards cannot be used.
    """
    if not run.data.shards:
        raise ConfigError("--shards is missing: a folder written by `harvest shards`")
    config = model_config(run)
    mesh = make_mesh(run.mesh, run.train.batch_size)
    cores = available_cores()
    workers = num_workers(run.data.workers)
    if workers:
        cores = min(cores, workers)
    limits = functools.partial(
        limit_rates, run.data.folders[0], run.data.split, run.model.num_frames, cores, seconds=seconds / 2
    )

    began = time.perf_counter()
    tokenizer = tokenizer_of_run(run, config)
    classes = config.head.classes if config.head else ()
    batches = training_batches(run, config.video.image_size, config.video.patch_size, tokenizer, 0, 1, classes)
    on_device = tuple(batch_shapes(run, config))
    opened = time.perf_counter() - began
    before = limits()

    def draw() -> dict[str, np.ndarray]:
        batch = {name: array for name, array in next(batches).items() if name in on_device}
        jax.block_until_ready(put_batch(batch, mesh))
        return batch

    try:
        began = time.perf_counter()
        batch = draw()
        first = time.perf_counter()
        while time.perf_counter() < first + min(2.0, seconds / 4):  # batches that were prepared before the timing
            draw()
        cpu, begin, count = cpu_seconds(), time.perf_counter(), 0
        while time.perf_counter() < begin + seconds:
            draw()
            count += 1
        elapsed, used = time.perf_counter() - begin, cpu_seconds() - cpu
        resident = resident_bytes()
    finally:
        batches.close()

    size = run.train.batch_size
    rate = count * size / elapsed
    limit, reading = np.mean([before, limits()], axis=0).tolist()
    video = config.video
    return {
        "clips_per_s": rate,
        "limit_clips_per_s": limit,
        "share_of_limit": rate / limit,
        "read_limit_clips_per_s": reading,
        "clips_per_core_s": count * size / used,
        "cores_used": used / elapsed,
        "limit_processes": cores,
        "bytes_per_clip": sum(array.nbytes for array in batch.values()) / size,
        "bytes_per_clip_whole": video.num_frames * video.image_size**2 * 3,
        "open_s": opened,
        "first_batch_s": first - began,
        "resident_bytes": resident,
        "clips": batches.sets.num_clips,
        "batch": size,
        "workers": workers,
        "prefetch": run.data.prefetch,
        "frames": video.num_frames,
        "kept": batch["patches"].shape[1],
        "patches": video.num_frames * video.cells_per_frame,
        "text_length": batch["ids"].shape[1],
        "text_slots": batch["slots"].shape[1],
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": available_cores(),
        "versions": software_versions(),
    }


def table(result: dict[str, Any]) -> str:
    """The result as text, one figure a line."""
    whole = result["bytes_per_clip_whole"]
    return "\n".join(
        [
            f"{result['frames']} frames, {result['kept']} of {result['patches']} patches, batch {result['batch']}, "
            f"{result['workers'] or 'no'} loader processes, {result['clips']:,} clips",
            f"clips/s          {result['clips_per_s']:.0f}, on {result['cores_used']:.2f} cores: "
            f"{result['clips_per_core_s']:.0f} for each",
            f"whole decoding   {result['limit_clips_per_s']:.0f} clips/s on {result['limit_processes']} cores; "
            f"the loader reaches {100 * result['share_of_limit']:.0f} % of it",
            f"reading alone    {result['read_limit_clips_per_s']:.0f} clips/s",
            f"kB a clip        {result['bytes_per_clip'] / 1e3:.0f} to the device; whole frames are {whole / 1e3:.0f}",
            f"start            {result['open_s']:.2f} s to open the shards, {result['first_batch_s']:.2f} s to the "
            "first batch",
            f"memory           {result['resident_bytes'] / 2**30:.2f} GiB in all processes",
            f"devices          {result['devices']} x {result['device']}",
        ]
    )
