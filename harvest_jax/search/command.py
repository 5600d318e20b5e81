"""`harvest search`: the videos of a folder that fit words best, by an index that is kept up to date."""

import argparse
import contextlib
import json
import os
from pathlib import Path

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.machine import available_cores
from harvest_jax.terminal import printable, progress

EXPLANATION = """examples:
  harvest search --model runs/demo/export --videos ~/Videos "a dog jumps over a log"
  harvest search --model runs/demo/export --videos ~/Videos --top 3 --json a dog | tail -1

The first search of a folder embeds every video in it. Later searches embed only the videos that are new or changed (by
size and modification time), and remove from the index those that are gone. A video that cannot be read is reported
once, with the reason, and tried again when it changes. Videos are the files below the folder whose names end like a
video's; hidden files and folders (.name) are skipped. Links to files are followed if they stay within the folder,
links to folders are not followed.

The index is one file, in ~/.cache/harvest_jax/search (or $XDG_CACHE_HOME), so that the folder of videos may be
read-only; --index names another file. An index belongs to one model; with another model it is built again.

On a terminal the result is a table, otherwise lines of rank, cosine and path with tabs between them.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `harvest search`."""
    parser.epilog = EXPLANATION
    parser.add_argument(
        "--model",
        required=True,
        type=Path,
        metavar="DIR",
        help="model folder, or WORKDIR[@STEP|@best] of a training",
    )
    parser.add_argument(
        "--videos", required=True, type=Path, metavar="FOLDER", help="folder to search, with all folders below it"
    )
    parser.add_argument("words", nargs="+", help="what to look for, in English")
    parser.add_argument("--top", type=int, default=10, metavar="K", help="number of results (default %(default)s)")
    parser.add_argument("--index", type=Path, metavar="FILE", help="the index file (default: see below)")
    parser.add_argument("--workers", type=int, metavar="N", help="decoding processes (default: one for each core)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(args: argparse.Namespace) -> int:
    """The command; see `add_arguments`."""
    args.words = " ".join(args.words).split()
    words = " ".join(args.words)
    if not words:
        raise ConfigError('there are no words to search for: harvest search ... "a dog jumps over a log"')
    for name in ("top", "workers"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} {value}: at least 1")
    path = _index_path(args.index, args.videos)

    from data_pipeline.media_paths import MOVING_SUFFIXES
    from harvest_jax.search import index as index_file
    from harvest_jax.search import printing
    from harvest_jax.search.rank import rank
    from harvest_jax.search.update import find_videos, update

    found = find_videos(args.videos)
    printing.say_skipped(found)
    if not found.videos:
        raise DataError(f"no videos in {args.videos} or below it: no name ends in {' '.join(sorted(MOVING_SUFFIXES))}")

    import harvest_jax

    model = harvest_jax.load(args.model)
    limit = model.config.text.context_length
    if len(model.tokenizer.encode(words)) + model.tokenizer.around > limit:
        printing.say(f"only the beginning of these words is used: the model reads {limit} tokens")
    index, problem = index_file.open_or_new(path, model.digest)
    if problem:
        printing.say(problem)

    def save(index: index_file.SearchIndex) -> None:
        try:
            index_file.write(path, index)
        except OSError as error:
            printing.say(f"warning: the index cannot be saved, so the next search embeds these videos again: {error}")

    with progress("embedding", "videos") as report:
        counts = update(index, found, model, args.workers or available_cores(), save, report)
    printing.say_update(index, counts, path, args.videos)
    if all(entry.embedding is None for entry in index.entries.values()):
        name, entry = next(iter(sorted(index.entries.items())))
        raise DataError(
            f"none of the {len(index.entries)} videos in {args.videos} can be read; "
            f"the first, {printable(name)}: {entry.reason}"
        )
    results = rank(index, model.encode_text(words)[0], args.videos, args.top)
    if args.json:
        print(json.dumps(printing.as_json(args, path, index, counts, results, found)))
    else:
        printing.print_results(results)
    return 0


def _index_path(asked: Path | None, folder: Path) -> Path:
    """The index file; its folder is made. Mistakes are found here, before hours of embedding.

    Raises:
      ConfigError: --index names something that cannot be an index file.
    """
    from data_pipeline.media_paths import MOVING_SUFFIXES
    from harvest_jax.search.index import default_path

    path = asked or default_path(folder)
    if asked is None:
        with contextlib.suppress(OSError):  # reported when the index is saved; the search works without
            path.parent.mkdir(parents=True, exist_ok=True)
        return path
    if path.is_dir():
        raise ConfigError(f"--index {path} is a folder: name a file")
    if path.suffix.lower() in MOVING_SUFFIXES:
        raise ConfigError(f"--index {path} is named like a video and would be overwritten: name another file")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() and not os.access(path.parent, os.W_OK):
        raise ConfigError(f"--index {path} cannot be written: name a file in another folder")
    return path
