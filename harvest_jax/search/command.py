"""`harvest search`: the videos of a folder that words describe best, by an index that is kept up to date."""

import argparse
import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.search.index import Changes, DamagedIndexError, OutdatedIndexError, SearchIndex, read, write

EXPLANATION = """examples:
  harvest search --model runs/demo/export --videos ~/Videos "a dog jumps over a log"
  harvest search --model runs/demo/export --videos ~/Videos --top 3 --json a dog | tail -1

The first search of a folder embeds every video in it; later ones only those that are new or have changed (by size and
time of change), and forget those that are gone. A video that cannot be read is listed once, with the reason, and tried
again when it changes. Files below the folder count if their name ends like a video's and nothing on the way is hidden
(.name); links to files are followed within the folder, links to folders are not.

The index is one file. It lies in ~/.cache/harvest_jax/search (or $XDG_CACHE_HOME), so that the folder may be read-only
and stays as it was; --index puts it elsewhere. It is of one model: another model builds it anew.

On a terminal the result is a table; otherwise lines of rank, cosine and path with tabs between them.
"""


class Result(NamedTuple):
    """One line of the answer: `score` is the cosine between words and video."""

    rank: int
    score: float
    path: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `harvest search`."""
    parser.epilog = EXPLANATION
    parser.add_argument("--model", required=True, type=Path, metavar="DIR", help="model folder")
    parser.add_argument(
        "--videos", required=True, type=Path, metavar="FOLDER", help="searched with all folders below it"
    )
    parser.add_argument("words", nargs="+", help="what to look for, in English")
    parser.add_argument("--top", type=int, default=10, metavar="K", help="how many to show (default %(default)s)")
    parser.add_argument("--index", type=Path, metavar="FILE", help="keep the index there (default: see below)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that decode (default: one for each core)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(args: argparse.Namespace) -> int:
    """The command; see `add_arguments`."""
    words = " ".join(" ".join(args.words).split())
    if not words:
        raise ConfigError('there are no words to search for: harvest search ... "a dog jumps over a log"')
    for name in ("top", "workers"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} {value}: at least 1")
    place = _place(args.index, args.videos)

    from harvest_jax.search.update import SUFFIXES, find_videos, update

    found = find_videos(args.videos)
    for line in [*found.closed, *_links(found.links)]:
        _say(f"passed by: {line}")
    if not found.videos:
        raise DataError(f"no videos in {args.videos} or below it: no name ends in {' '.join(sorted(SUFFIXES))}")

    import harvest_jax

    model = harvest_jax.load(args.model)
    if len(model.tokenizer.encode(words)) > model.config.text.context_length - 2:
        _say(f"only the beginning of these words is used: the model reads {model.config.text.context_length} tokens")
    digest = model_digest(model)
    index = _open(place, digest) or SearchIndex(digest, {})
    with _progress() as report:
        changes = update(index, found, model, args.workers or _cores(), _saver(place), report)
    _report(index, changes, place, args.videos)
    if all(entry.embedding is None for entry in index.entries.values()):
        name, entry = next(iter(sorted(index.entries.items())))
        raise DataError(
            f"none of the {len(index.entries)} videos in {args.videos} can be read; "
            f"the first, {printable(name)}: {entry.reason}"
        )
    results = rank(index, model.encode_text([words])[0], args.videos, args.top)
    if args.json:
        print(json.dumps(_json(args, words, digest, place, index, changes, results)))
    elif sys.stdout.isatty():
        _table(results)
    else:
        for result in results:
            print(f"{result.rank}\t{result.score:.4f}\t{printable(result.path)}")
    return 0


def rank(index: SearchIndex, text: Float32[np.ndarray, " d"], folder: Path, top: int) -> list[Result]:
    """The `top` videos by cosine with the embedded words [D]; equal ones by name."""
    rows = [(name, entry.embedding) for name, entry in sorted(index.entries.items()) if entry.embedding is not None]
    scores = np.stack([embedding for _, embedding in rows]) @ text
    best = np.argsort(-scores, kind="stable")[:top]
    return [
        Result(number, float(scores[i]), os.path.join(folder, rows[i][0])) for number, i in enumerate(best, start=1)
    ]


def model_digest(model: Any) -> str:
    """SHA-256 over the model's description and its weights, wherever they lie and in whatever precision."""
    from harvest_jax.checkpoint.digests import tree_digest

    # Not of the file: safetensors writes its header in another order each time.
    parts = [model.config.to_dict(), tree_digest(model.params)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def printable(name: str) -> str:
    r"""A file name that can do nothing to a terminal or a table: what is not printable is written as \x1b or \udce9."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in name)


def default_place(folder: Path) -> Path:
    """Where the index of a folder lies if --index does not say: in the user's cache, by the folder's real path.

    Raises:
      ConfigError: the user has no home.
    """
    real = os.path.realpath(folder)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", os.path.basename(real))[:40] or "root"
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        raise ConfigError("no home folder to keep the index in: name a file with --index") from None
    return cache / "harvest_jax" / "search" / f"{name}-{hashlib.sha256(os.fsencode(real)).hexdigest()[:16]}.safetensors"


def _place(asked: Path | None, folder: Path) -> Path:
    """The index file, in a folder that exists if that can be had.

    Raises:
      ConfigError: --index names something that cannot be one (found out now, not after an hour).
    """
    place = asked or default_place(folder)
    if asked is None:
        with contextlib.suppress(OSError):  # said when the index is saved; the search itself can go on without
            place.parent.mkdir(parents=True, exist_ok=True)
        return place
    from harvest_jax.search.update import SUFFIXES

    if place.is_dir():
        raise ConfigError(f"--index {place} is a folder: name a file")
    if place.suffix.lower() in SUFFIXES:
        raise ConfigError(f"--index {place} is named like a video and would be overwritten: name another file")
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists() and not os.access(place.parent, os.W_OK):
        raise ConfigError(f"--index {place} cannot be written there: name a file in another folder")
    return place


def _open(place: Path, digest: str) -> SearchIndex | None:
    try:
        index = read(place)
    except OSError as error:
        raise ConfigError(f"the index {place} cannot be read ({error.strerror}): name another with --index") from error
    except OutdatedIndexError:
        _say(f"the index {place} is of another version, which showed frames to the model differently: it is built anew")
        return None
    except DamagedIndexError as error:
        aside = place.with_name(place.name + ".damaged")
        kept = ""
        with contextlib.suppress(OSError):
            os.replace(place, aside)
            kept = f"; the old file is now {aside}"
        _say(f"warning: the index {place} cannot be used ({error}) and is built anew{kept}")
        return None
    if index is not None and index.model != digest:
        _say(f"the index {place} is of another model: it is built anew")
        return None
    return index


def _saver(place: Path) -> Callable[[SearchIndex], None]:
    def save(index: SearchIndex) -> None:
        try:
            write(place, index)
        except OSError as error:
            _say(f"warning: the index is not kept, so the next search embeds again: {error}")

    return save


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, as soon as there is something to do."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("reading videos"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


def _report(index: SearchIndex, changes: Changes, place: Path, folder: Path) -> None:
    for name, reason in changes.unreadable:
        _say(f"cannot be read: {printable(os.path.join(folder, name))}: {reason}")
    failed = sum(entry.embedding is None for entry in index.entries.values())
    counts = ((changes.added, "new"), (changes.changed, "changed"), (changes.removed, "gone"), (failed, "not readable"))
    parts = ", ".join(f"{count} {what}" for count, what in counts if count)
    _say(f"index {place}: {len(index.entries)} videos" + (f" ({parts})" if parts else ""))


def _links(links: list[str]) -> list[str]:
    if not links:
        return []
    names = ", ".join(map(printable, links[:3])) + (", ..." if len(links) > 3 else "")
    return [f"{len(links)} links to folders or out of this one ({names})"]


def _table(results: list[Result]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    # No rich.Table: it folds or cuts long paths. Left to the terminal, a path can be copied in one piece. And Text: a
    # name such as [red] is no markup.
    console.print(Text(f"{'rank':>4}  {'score':>7}  video", style="bold"), soft_wrap=True)
    for result in results:
        line = Text.assemble(f"{result.rank:>4}  ", (f"{result.score:7.4f}", "cyan"), f"  {printable(result.path)}")
        console.print(line, soft_wrap=True)


def _json(
    args: argparse.Namespace,
    words: str,
    digest: str,
    place: Path,
    index: SearchIndex,
    changes: Changes,
    results: list[Result],
) -> dict[str, Any]:
    unreadable = [(name, entry.reason) for name, entry in sorted(index.entries.items()) if entry.embedding is None]
    return {
        "words": words,
        "model": str(args.model),
        "model_digest": digest,
        "videos": str(args.videos),
        "index": str(place),
        "n_videos": len(index.entries) - len(unreadable),
        "changes": {"new": changes.added, "changed": changes.changed, "gone": changes.removed, "kept": changes.kept},
        "results": [result._asdict() for result in results],
        "unreadable": [{"path": os.path.join(args.videos, name), "reason": reason} for name, reason in unreadable],
    }


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
