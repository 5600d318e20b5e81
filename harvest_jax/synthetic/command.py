"""`harvest world`: a generated world of clips, as a file that `harvest shards` reads, or as MP4 files."""

import argparse
from pathlib import Path

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.terminal import printable, progress

EPILOG = """A world is a small file, NAME.world.json: harvest shards draws its clips when it needs them, so that 10
million clips take no room before. --videos also writes every clip as an MP4 file, with a manifest of all columns.

  harvest world --out small.world.json --clips train=20000 val=1000 retrieval=500 choice=3000 questions=1600 \\
      actions=1000
  harvest shards --manifest small.world.json --out shards/small --split train
  harvest shards --manifest small.world.json --out shards/small --split choice --frames 8

Splits: train and val (captions; names that begin so are also possible), stills and unmarked (single pictures with and
without marks that tell what happens), retrieval (one caption each), choice (several
sentences of which one is right), questions (with one word as answer), actions (a label). The last four show
combinations of look and action that no training clip has. Tests want --frames 8, as many as the model sees: then a
clip and its reverse have the same frames.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `harvest world`."""
    parser.epilog = EPILOG
    parser.add_argument("--out", required=True, type=Path, metavar="NAME.world.json", help="the file to write")
    parser.add_argument(
        "--clips", required=True, nargs="+", metavar="SPLIT=N", help="how many clips each split has, 1 to 100 million"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other clips (default: %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="of the pictures, 32 to 512 pixels (default: %(default)s)")
    parser.add_argument(
        "--look",
        default="drawn",
        choices=("drawn", "real"),
        help="drawn: shapes; real: handwritten digits, and photographs (needs the extra harvest_jax[world])",
    )
    parser.add_argument("--videos", type=Path, metavar="DIR", help="also write the clips as MP4 files, and a manifest")
    parser.add_argument("--frames", type=int, default=16, help="of each MP4 file (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """The command; see `add_arguments`."""
    from harvest_jax.files import write_atomically
    from harvest_jax.synthetic.rows import SUFFIX, World, read_world
    from harvest_jax.synthetic.videos import check_videos, write_videos

    if not str(args.out).endswith(SUFFIX):
        raise ConfigError(f"--out {printable(str(args.out), 80)}: the name must end in {SUFFIX}")
    if not 2 <= args.frames <= 256:
        raise ConfigError(f"--frames {args.frames} is outside 2..256")
    try:
        world = World(args.seed, _counts(args.clips), args.size, args.look)
        if args.videos is not None:
            check_videos(world)
    except DataError as error:
        raise ConfigError(str(error)) from error
    if args.out.exists():
        read_world(args.out)  # another file is not replaced
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(args.out, world.text().encode())
    except OSError as error:
        raise ConfigError(f"--out {printable(str(args.out), 80)} cannot be written ({error.strerror})") from error
    total = sum(world.clips.values())
    print(
        f"{args.out}: {total:,} clips; harvest shards --manifest {args.out} --out DIR makes shards of them", flush=True
    )
    if args.videos is not None:
        with progress("writing", "clips") as report:
            manifest = write_videos(world, args.videos, args.frames, lambda done: report(done, total, ""))
        print(f"{manifest}: the manifest of {total:,} MP4 files", flush=True)
    return 0


def _counts(words: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in words:
        split, equals, count = word.partition("=")
        if not equals or not count.isascii() or not count.isdigit():
            raise ConfigError(f"--clips {printable(word, 60)}: write SPLIT=N, such as train=1000")
        if split in found:
            raise ConfigError(f"--clips names the split {printable(split, 60)} twice")
        found[split] = int(count)
    return found
