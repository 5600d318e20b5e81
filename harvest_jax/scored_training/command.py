"""`harvest train`: training, and the evaluations of a run while it trains, put together."""

import argparse
import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harvest_jax.errors import ConfigError

if TYPE_CHECKING:
    from harvest_jax.config.run import RunConfig
    from harvest_jax.train.fork import Fork

EXAMPLES = """examples:
  harvest weights import ViT-B-16.pt --out weights/clip_b16          # a CLIP to start from
  harvest train --config harvest_b16 --workdir runs/b16 --config.data.shards=shards/webvid \\
      --config.model.init_from=weights/clip_b16
  harvest train --config finetune/classification --workdir runs/k400 --config.data.shards=shards/k400 \\
      --config.model.init_from=runs/b16/export                        # labels; finetune/retrieval, finetune/videoqa
  harvest train --config demo --workdir runs/x --config.data.shards=runs/demo/shards \\
      --config.model.init_from=runs/demo/export                       # after `harvest demo --workdir runs/demo`

DIR gets config.json, metrics.jsonl and events.jsonl (one JSON object a line), checkpoints/ and, at the end, the model
folder export/. If tensorboardX is installed (the extra harvest_jax[tensorboard]), it gets tensorboard/ too.
`harvest report DIR` draws a page of it, also while it runs.

With --config.eval.every=N the run is evaluated while it trains and keeps its best checkpoint, WORKDIR@best:
  --config.eval.every=500 --config.eval.metric=t2v/R@1 \\
  --config.eval.config="eval/retrieval --config.data.shards=shards/val --config.data.split=val"

Run the same command again to go on from the last checkpoint. The workdir holds everything for that: the model folder of
model.init_from is read at the first start alone.

--fork begins another run from a checkpoint of a run, with its config except for what you change: more steps for a run
that has finished, a lower learning rate from before it failed, other shards.
  harvest train --fork runs/b16 --workdir runs/longer --config.train.steps=40000
  harvest train --fork runs/b16@8000 --workdir runs/slower --config.train.learning_rate=5e-6 --fresh_optimizer

Exit codes: 0 done, 2 configuration, 3 data, 4 the loss is not a number, 5 checkpoint, 6 something hung or a process was
lost, 42 stopped by a signal with the state saved.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `harvest train`."""
    parser.epilog = EXAMPLES
    parser.usage = """harvest train --config FILE[:ARGUMENT] --workdir DIR [--config.FIELD=VALUE ...]
       harvest train --fork WORKDIR[@STEP] --workdir DIR [--fresh_optimizer] [--config.FIELD=VALUE ...]"""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="file, or the name of a packaged one: demo, harvest_b16, harvest_l14, finetune/TASK; all fields: base",
    )
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--fork",
        metavar="WORKDIR[@STEP]",
        help="begin from this checkpoint of another run, its newest without @; --config defaults to that of that run",
    )
    parser.add_argument(
        "--fresh_optimizer", action="store_true", help="with --fork: the optimizer's moments begin at zero"
    )
    parser.add_argument(
        "--validate_only", action="store_true", help="check config, start, devices and shards; train nothing"
    )
    parser.add_argument(
        "--profile",
        default="",
        metavar="STEP[:N]",
        help="write a trace of N steps (3) from this one on to DIR/profile; kill -USR1 asks for one at any time",
    )
    parser.set_defaults(overrides=[])  # filled with what follows --config.


def run(args: argparse.Namespace) -> int:
    """The command; see `add_arguments`."""
    began = time.monotonic()
    checked, fork = _config(args)
    if args.validate_only:
        from harvest_jax.scored_training.scorer import run_scorer
        from harvest_jax.train.validate import validate

        lines = validate(checked, args.workdir, fork)
        run_scorer(checked, args.workdir)
        print("\n".join(lines))
        return 0
    import jax

    from harvest_jax import signals
    from harvest_jax.scored_training.scorer import run_scorer
    from harvest_jax.train import distributed, profile
    from harvest_jax.train.training import train
    from harvest_jax.train.validate import shard_folders

    wanted = profile.parse(args.profile) if args.profile else None
    if checked.distributed:
        distributed.initialize_from_environment()
    with distributed.failing_together(), contextlib.redirect_stdout(signals.outliving(sys.stdout)):
        shard_folders(checked)
        lead = jax.process_index() == 0  # the others do not evaluate
        scorer = run_scorer(checked, args.workdir) if lead else None
        # Settled before the signals are given back: this process may still wait for the others.
        train(checked, args.workdir, scorer, fork, began, wanted, finished=signals.settle)
    return 0


def _config(args: argparse.Namespace) -> "tuple[RunConfig, Fork | None]":
    """The checked config, and the checkpoint that the run is to begin from.

    Without --config a fork has the config of its origin, or once it has begun its own, so that the origin may be gone.
    """
    from harvest_jax.checkpoint.workdir import Workdir
    from harvest_jax.config import run as run_config
    from harvest_jax.weights.mistaken_path import check_may_be_config

    fork = None
    if args.fork:
        from harvest_jax.train.fork import Fork

        fork = Fork(args.fork, args.fresh_optimizer)
    elif args.fresh_optimizer:
        raise ConfigError("--fresh_optimizer belongs to --fork: a run that begins by itself has a fresh one")
    if args.config:
        check_may_be_config(args.config)
        return run_config.load(args.config, args.overrides), fork
    if fork is None:
        raise ConfigError("give --config, the settings of the run (harvest train --help), or --fork")
    own = Workdir(args.workdir)
    return run_config.load_recorded((own if own.complete_steps() else fork.found()[0]).config, args.overrides), fork
