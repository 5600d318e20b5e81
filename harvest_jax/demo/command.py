"""`harvest demo`: every step of the project on generated clips, and a page with the results."""

import argparse
from pathlib import Path

from harvest_jax.errors import ConfigError

EXPLANATION = """Writes WORKDIR/report.html (a page), WORKDIR/results (for harvest results), WORKDIR/report.json (other
figures of the page), WORKDIR/clips (H.264 files and a manifest), WORKDIR/shards and WORKDIR/export (the trained model,
for harvest search and harvest eval).

About 4 minutes on 2 cores. Run the same command again to go on after an interruption.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `harvest demo`."""
    parser.epilog = EXPLANATION
    parser.add_argument("--workdir", required=True, type=Path, help="folder for everything that the demo writes")
    parser.add_argument("--steps", type=int, help="training steps (default: 1200, as in configs/demo.py)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the clips, of the patches kept and of the training (%(default)s)"
    )
    parser.add_argument(
        "--train_image_clip", action="store_true", help="train the image model too, instead of using the packaged one"
    )


def run(args: argparse.Namespace) -> int:
    """The command; see `add_arguments`."""
    if args.steps is not None and args.steps < 1:
        raise ConfigError(f"--steps {args.steps}: at least 1")

    from harvest_jax.demo.stages import DemoOptions, run_demo

    run_demo(args.workdir, DemoOptions(args.steps, args.seed, args.train_image_clip))
    return 0
