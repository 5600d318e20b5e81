"""What `harvest search` prints: the results on stdout, all else on stderr."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harvest_jax.search.index import SearchIndex
from harvest_jax.search.rank import Result
from harvest_jax.search.update import FolderVideos, UpdateCounts
from harvest_jax.terminal import printable


def say(line: str) -> None:
    """Print a line to stderr."""
    print(line, file=sys.stderr, flush=True)


def say_skipped(found: FolderVideos) -> None:
    """Name the folders that cannot be listed, the links that are not followed and the files that are no videos."""
    links = found.links
    for line in found.closed:
        say(f"skipped: {printable(line)}")
    if links:
        names = ", ".join(map(printable, links[:3])) + (", ..." if len(links) > 3 else "")
        say(f"skipped: {len(links)} links to folders or out of this folder ({names})")
    for line in found.skipped.in_words():
        say(f"skipped: {line}")


def say_update(index: SearchIndex, counts: UpdateCounts, path: Path, folder: Path) -> None:
    """Name the videos that could not be read this time, and sum up."""
    for name, reason in counts.unreadable:
        say(f"cannot be read: {printable(os.path.join(folder, name))}: {reason}")
    failed = sum(entry.embedding is None for entry in index.entries.values())
    numbers = ((counts.added, "new"), (counts.changed, "changed"), (counts.removed, "gone"), (failed, "not readable"))
    parts = ", ".join(f"{count} {what}" for count, what in numbers if count)
    say(f"index {path}: {len(index.entries)} videos" + (f" ({parts})" if parts else ""))


def print_results(results: Sequence[Result]) -> None:
    """A table on a terminal; otherwise lines of rank, cosine and path with tabs between them."""
    if not sys.stdout.isatty():
        for result in results:
            print(f"{result.rank}\t{result.score:.4f}\t{printable(result.path)}")
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    # Not rich.Table, which folds or cuts long paths: a path printed as it is can be copied in one piece. As Text, a
    # name such as [red] is not markup.
    console.print(Text(f"{'rank':>4}  {'score':>7}  video", style="bold"), soft_wrap=True)
    for result in results:
        line = Text.assemble(f"{result.rank:>4}  ", (f"{result.score:7.4f}", "cyan"), f"  {printable(result.path)}")
        console.print(line, soft_wrap=True)


def as_json(
    args: argparse.Namespace,
    path: Path,
    index: SearchIndex,
    counts: UpdateCounts,
    results: Sequence[Result],
    found: FolderVideos,
) -> dict[str, Any]:
    """The object that --json prints; `args` are the command's, `path` is the index file, `found` is the folder."""
    unreadable = [(name, entry.reason) for name, entry in sorted(index.entries.items()) if entry.embedding is None]
    return {
        "words": " ".join(args.words),
        "model": str(args.model),
        "model_digest": index.model,
        "videos": str(args.videos),
        "index": str(path),
        "n_videos": len(index.entries) - len(unreadable),
        "changes": {"new": counts.added, "changed": counts.changed, "gone": counts.removed, "kept": counts.kept},
        "skipped": dict(found.skipped.kinds),
        "results": [result._asdict() for result in results],
        "unreadable": [{"path": os.path.join(args.videos, name), "reason": reason} for name, reason in unreadable],
    }
