"""What `harvest search` prints: the results on stdout, all else on stderr."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harvest_jax.search.find import Baseline, Moment
from harvest_jax.search.index import SearchIndex
from harvest_jax.search.update import UpdateCounts
from harvest_jax.terminal import printable


def say(line: str) -> None:
    """Print a line to stderr."""
    print(line, file=sys.stderr, flush=True)


def say_skipped(closed: Sequence[str], links: Sequence[str]) -> None:
    """Name the folders that cannot be listed and the links that are not followed."""
    for line in closed:
        say(f"skipped: {printable(line)}")
    if links:
        names = ", ".join(map(printable, links[:3])) + (", ..." if len(links) > 3 else "")
        say(f"skipped: {len(links)} links to folders or out of this folder ({names})")


def say_update(index: SearchIndex, counts: UpdateCounts, path: Path, folder: Path) -> None:
    """Name the files that could not be read this time, and sum up."""
    for name, reason in counts.unreadable:
        say(f"cannot be read: {printable(os.path.join(folder, name))}: {reason}")
    numbers = (
        (counts.added, "new"),
        (counts.changed, "changed"),
        (counts.moved, "moved or copied"),
        (counts.removed, "gone"),
        (len(index.unreadable()), "not readable"),
    )
    parts = ", ".join(f"{count} {what}" for count, what in numbers if count)
    windows = sum(len(clip.spans) for clip in index.clips.values())
    say(f"index {path}: {len(index.files)} files, {windows} windows" + (f" ({parts})" if parts else ""))


def clock(seconds: float) -> str:
    """75.5 -> "1:15.5", 3600 -> "1:00:00.0"."""
    tenths = round(10 * seconds)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    ending = f"{minutes:02d}" if hours else f"{minutes}"
    return f"{f'{hours}:' if hours else ''}{ending}:{rest / 10:04.1f}"


def print_results(moments: Sequence[Moment], folder: Path) -> None:
    """A table on a terminal; otherwise lines of rank, cosine, path, start, end and z with tabs between them."""
    if not sys.stdout.isatty():
        for found in moments:
            path = printable(os.path.join(folder, found.path))
            print(f"{found.rank}\t{found.score:.4f}\t{path}\t{found.start:.2f}\t{found.end:.2f}\t{found.z:.2f}")
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    # Not rich.Table, which folds or cuts long paths: a path printed as it is can be copied in one piece. As Text, a
    # name such as [red] is not markup.
    head = f"{'rank':>4}  {'score':>7}  {'z':>5}  {'start':>9}  {'end':>9}  file"
    console.print(Text(head, style="bold"), soft_wrap=True)
    for found in moments:
        copies = f"  (and {len(found.copies)} copies)" if found.copies else ""
        line = Text.assemble(
            f"{found.rank:>4}  ",
            (f"{found.score:7.4f}", "cyan"),
            f"  {found.z:5.1f}  {clock(found.start):>9}  {clock(found.end):>9}  ",
            f"{printable(os.path.join(folder, found.path))}{copies}",
        )
        console.print(line, soft_wrap=True)


def as_json(
    query: str,
    about: dict[str, Any],
    index: SearchIndex,
    counts: UpdateCounts,
    folder: Path,
    baseline: Baseline,
    moments: Sequence[Moment],
) -> dict[str, Any]:
    """The object that --json prints for a query; `about` says which model and index it is."""
    unreadable = index.unreadable()
    results = []
    for found in moments:
        fields = found.as_json()
        paths = {"path": os.path.join(folder, found.path), "copies": [os.path.join(folder, p) for p in found.copies]}
        results.append(fields | paths)
    return {
        "words": query,
        **about,
        "n_videos": len(index.files) - len(unreadable),
        "n_windows": sum(len(clip.spans) for clip in index.clips.values()),
        "changes": {
            "new": counts.added,
            "changed": counts.changed,
            "moved": counts.moved,
            "gone": counts.removed,
            "kept": counts.kept,
        },
        "usual_score": {"mean": baseline.mean, "deviation": baseline.deviation},
        "results": results,
        "unreadable": [{"path": os.path.join(folder, name), "reason": reason} for name, reason in unreadable],
    }
