"""`harvest bench`: how fast this machine trains."""

import argparse
import json
from pathlib import Path
from typing import Any

from harvest_jax import arguments
from harvest_jax.errors import ConfigError

CPU_BATCH = 2  # clips; the config's batch of B/16 would take minutes and all memory on a CPU

_STEP = """What is timed is the step that `harvest train` runs (towers, decoder, losses, backward pass, optimizer), with
random parameters and a random batch that is already on the device: without loader, logging and checkpoints.

  harvest bench step                                     # B/16, 8 frames, 90 % dropped; on a CPU 2 clips a step
  harvest bench step --config.model.dtype=float32        # CPUs without bfloat16 instructions take half as long
  harvest bench step --batch 1024 --json
  harvest bench step --config harvest_l14 --config.mesh.fsdp=1 --batch 256 --keep 0.25
  harvest bench step --profile runs/trace                # and a trace for XProf or Perfetto

MFU is the rate of the step's matrix products as a share of this device's own rate of large matrix products, measured
in the same run in the same type. Products that are recomputed to save memory do not count. The last line of --json is
one JSON object: clips_per_s, step_ms_p50, step_ms_p95, tokens, mfu, device, tflop_per_clip, matmul_tflops, peak_bytes
and what was measured with which versions."""


_LOADER = """What is timed is the loader of `harvest train`: from shards to batches of kept patches on the devices,
without a model. For comparison two limits are timed on the same cores, before and after: decoding alone (as many whole
frames as the clips need, from memory) and reading records alone.

  harvest bench loader --shards shards/webvid
  harvest bench loader --shards shards/webvid --config.data.workers=16 --batch 1024 --seconds 60 --json

The last line of --json is one JSON object: clips_per_s, limit_clips_per_s (decoding alone), read_limit_clips_per_s,
bytes_per_clip (to the devices), cores_used, clips_per_core_s, open_s, first_batch_s, resident_bytes and with which
settings and versions."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `harvest bench`."""
    commands = parser.add_subparsers(title="commands", dest="what", metavar="step|loader", required=True)
    step = _command(
        commands, "step", "time the training step: clips/s, milliseconds, MFU, memory", _STEP, "[--steps N]"
    )
    step.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help=f"clips of a step (default: the config's; {CPU_BATCH} a CPU device)",
    )
    step.add_argument("--steps", type=_positive, default=10, metavar="N", help="timed steps (default: 10, twice)")
    step.add_argument("--profile", type=Path, metavar="DIR", help="write a jax.profiler trace of three steps there")
    summary = "time the loader: clips/s, and those of decoding alone and reading alone; bytes, cores, memory"
    loader = _command(commands, "loader", summary, _LOADER, "--shards DIR [--seconds S]")
    loader.add_argument("--shards", metavar="DIR", help="a folder written by `harvest shards` (default: data.shards)")
    loader.add_argument("--batch", type=int, metavar="N", help="clips a batch (default: the config's)")
    loader.add_argument("--seconds", type=_seconds, default=10.0, metavar="S", help="of timing (default: 10)")


def _command(commands: Any, name: str, summary: str, epilog: str, options: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=arguments.HelpFormatter,
        allow_abbrev=False,
        usage=f"harvest bench {name} {options} [--config FILE[:ARGUMENT]] [--batch N] [--keep R] [--json] "
        "[--config.FIELD=VALUE ...]",
    )
    # also accepted after the action; without it there, --debug before the action still holds
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument("--config", metavar="FILE", help="config file, or a packaged one (default: harvest_b16)")
    parser.add_argument("--keep", type=float, metavar="R", help="share of the patches kept (default: the config's)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(overrides=[])  # filled with what follows --config.
    return parser


def run(args: argparse.Namespace) -> int:
    """The command; see `add_arguments`."""
    import jax

    from harvest_jax.config import run as run_config
    from harvest_jax.weights.mistaken_path import check_may_be_config

    overrides = list(args.overrides)
    batch = args.batch
    try:
        jax.devices()
    except RuntimeError as error:  # JAX_PLATFORMS names a device that is not here
        raise ConfigError(f"no device to measure on: {' '.join(str(error).split())}") from error
    if (
        args.what == "step"
        and batch is None
        and jax.default_backend() == "cpu"
        and not any(one.partition("=")[0].replace("-", "_") == "train.batch_size" for one in overrides)
    ):
        batch = CPU_BATCH * jax.device_count()
    overrides += [f"train.batch_size={batch}"] if batch is not None else []
    overrides += [f"model.keep_ratio={args.keep}"] if args.keep is not None else []
    overrides += [f"data.shards={args.shards}"] if args.what == "loader" and args.shards else []
    config = args.config or "harvest_b16"
    check_may_be_config(config)
    checked = run_config.load(config, overrides)
    result: dict[str, Any] = {"config": config, "overrides": overrides}
    if args.what == "loader":
        from harvest_jax.bench import time_loader

        result |= time_loader.bench_loader(checked, args.seconds)
        print(json.dumps(result) if args.json else time_loader.table(result))
        return 0
    from harvest_jax.bench.time_step import bench_step

    result |= bench_step(checked, args.steps, profile=args.profile)
    print(json.dumps(result) if args.json else table(result))
    return 0


def table(result: dict[str, Any]) -> str:
    """The result as text, one figure a line."""
    parts = ", ".join(f"{name} {1e3 * value:.3g}" for name, value in result["tflop_parts"].items())
    again = f"; {1e3 * result['tflop_recomputed']:.3g} more are recomputed" if result["tflop_recomputed"] else ""
    return "\n".join(
        [
            f"{result['model']}, {result['frames']} frames, {result['tokens'] - 1} of {result['patches']} patches, "
            f"batch {result['batch']}, {result['dtype']}, on {result['devices']} x {result['device']}",
            f"clips/s          {result['clips_per_s']:.2f}",
            f"ms a step        {result['step_ms_p50']:.1f} (p50), {result['step_ms_p95']:.1f} (p95), "
            f"{result['step_ms_unblocked']:.1f} in a row",
            f"GFLOP a clip     {1e3 * result['tflop_per_clip']:.4g} ({parts}{again})",
            f"MFU              {100 * result['mfu']:.1f} % of {result['matmul_tflops']:.3g} TFLOP/s, "
            "the measured rate of matrix products of this device",
            f"peak memory      {result['peak_bytes'] / 2**30:.2f} GiB ({result['peak_bytes_from']})",
            f"compile          {result['trace_s']:.1f} s tracing, {result['compile_s']:.1f} s XLA",
            f"jax              {result['versions']['jax']}, {result['versions']['backend']}",
        ]
    )


def _positive(text: str) -> int:
    number = arguments.whole_number(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _seconds(text: str) -> float:
    number = arguments.number(text)
    if not 0.1 <= number <= 86400:
        raise argparse.ArgumentTypeError("must be from 0.1 to 86400")
    return number
