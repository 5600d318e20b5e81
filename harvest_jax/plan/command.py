"""`harvest plan`: its arguments; what it does is imported when it runs, so that its help needs no JAX."""

import argparse
import json
from pathlib import Path

from harvest_jax.errors import ConfigError

_EPILOG = """The step is the one that `harvest train` runs. It is compiled, not run. For a TPU slice any machine with
libtpu (the extra harvest_jax[plan]) can do that; for GPUs any machine with JAX's CUDA plugin (harvest_jax[gpu] or
[gpu-cuda13]; without the plugin the step is modelled from the traced program); for cpu:N it is N virtual devices.
Memory, collectives, FLOPs and kernels are those of the compiled program; times are estimates from public figures.

  harvest plan --config harvest_b16 --topology v5e:16x16 --config.train.batch_size=32768
  harvest plan --config harvest_l14 --topology v5p:4x4x4 --search --json
  harvest plan --config harvest_b16 --topology v5e:16x16 --slices 2
  harvest plan --config harvest_b16 --topology h200:8 --measured bench.json

Topologies: v5e:16x16, v5p:4x4x4, v6e:8x8, v4:4x4x4, h200:8, h100:8, a100:8 or cpu:8, with other numbers too.
The last line of --json is one JSON object: devices, per_device_bytes, fits, collectives, between_slices_bytes (of the
collectives, what goes over the network between slices), memory, flops, estimate (null where a step takes under a
millisecond: too short to estimate), kernels (where the time goes), what was planned and with which versions. A plan
that does not fit ends with exit code 2, except with --search."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `harvest plan`."""
    parser.epilog = _EPILOG
    parser.usage = (
        "harvest plan --config FILE[:ARGUMENT] --topology NAME [--slices N] [--search] [--json] "
        "[--config.FIELD=VALUE ...]"
    )
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE",
        help="config file, or a packaged one: demo, harvest_b16, harvest_l14, base",
    )
    parser.add_argument("--topology", required=True, metavar="NAME", help="hardware, such as v5e:16x16 or h200:8")
    parser.add_argument("--slices", type=int, default=1, metavar="N", help="TPUs: so many slices of this topology (1)")
    parser.add_argument("--search", action="store_true", help="find the largest global batch that fits")
    parser.add_argument(
        "--measured", type=Path, metavar="FILE", help="GPUs: a result of `harvest bench step --json` to scale by"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(overrides=[])  # filled with what follows --config.


def run(args: argparse.Namespace) -> int:
    """The command; see `add_arguments`."""
    from harvest_jax.config import run as run_config
    from harvest_jax.plan.plan_text import plan_text, too_large
    from harvest_jax.plan.planning import plan
    from harvest_jax.plan.topology import parse_topology
    from harvest_jax.weights.mistaken_path import check_may_be_config

    check_may_be_config(args.config)
    checked = run_config.load(args.config, args.overrides)
    topology = parse_topology(args.topology, args.slices)
    found = {"config": args.config, "overrides": list(args.overrides)}
    found |= plan(checked, topology, search=args.search, measured=args.measured)
    print(json.dumps(found) if args.json else plan_text(found), flush=True)
    if found["fits"] is False and not found.get("largest_batch", {}).get("batch"):
        raise ConfigError(too_large(checked, found))
    return 0
