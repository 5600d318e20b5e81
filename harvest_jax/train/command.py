"""`harvest train`: its arguments; what it does is imported when it runs, so that its help needs no JAX."""

import argparse
from pathlib import Path

EXAMPLES = """examples:
  harvest train --config configs/demo.py --workdir runs/x --config.data.shards=shards/mine
  harvest train --config configs/harvest_b16.py --workdir runs/b16 --config.data.shards=shards/webvid

Run the same command again to go on from the last checkpoint. Exit codes: 0 done, 2 configuration, 3 data,
4 the loss stopped being a number, 5 checkpoint, 42 stopped by a signal with the state saved.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `harvest train`."""
    parser.epilog = EXAMPLES
    parser.usage = "harvest train --config FILE[:ARGUMENT] --workdir DIR [--config.FIELD=VALUE ...]"
    parser.add_argument("--config", required=True, metavar="FILE", help="config file; its fields: configs/base.py")
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR", help="checkpoints, metrics and export")
    parser.add_argument("--validate_only", action="store_true", help="check the config and the shards, train nothing")
    parser.set_defaults(overrides=[])  # filled with what follows --config.


def run(args: argparse.Namespace) -> int:
    """The command; see `add_arguments`."""
    from harvest_jax.config import run as run_config

    checked = run_config.load(args.config, args.overrides)
    if args.validate_only:
        from data_pipeline.shards.shard_format import open_shards
        from harvest_jax.train.initialise import model_config

        model_config(checked)
        clips = sum(len(open_shards(folder, checked.data.split)) for folder in checked.data.folders)
        print(f"the config is sound; {clips} clips in split {checked.data.split}")
        return 0
    from harvest_jax.train import distributed
    from harvest_jax.train.run import train

    if checked.distributed:
        distributed.initialize_from_environment()
    with distributed.failing_together():
        train(checked, args.workdir)
    return 0
