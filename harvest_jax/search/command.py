"""`harvest search`: the moments in a folder's videos that fit words or pictures best."""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harvest_jax.errors import ConfigError, DataError, HarvestError
from harvest_jax.machine import available_cores
from harvest_jax.terminal import printable, progress

EXPLANATION = """examples:
  harvest search --model runs/demo/export --videos ~/Videos "a dog jumps over a log"
  harvest search --model runs/demo/export --videos ~/Videos "a dog" - "on a beach"
  harvest search --model runs/demo/export --videos ~/Videos "@cat.jpg + 0.5*at night"
  harvest search --model runs/demo/export --videos ~/Videos @clip.mp4#t=12,20 --top 3 --cut found
  harvest search --model runs/demo/export --videos ~/Videos --queries words.txt --json

A query is words, @FILE (a picture or a clip, of which #t=START,END are seconds), or several of them with + or - between
them, each with a weight before a * if it is not 1. Without a query, a terminal gets a prompt.

Long videos are searched in windows of --window seconds, of which one begins every --stride seconds. A result is a
moment: neighbouring windows that fit nearly as well are one. The columns are the cosine, z (how many standard
deviations it lies above the folder's scores for neutral texts, such as "a video of a place"), start, end and file.

The first search of a folder embeds every video and picture in it. Later searches embed only those that are new or
changed, know those that were moved by their content, and remove those that are gone. A file that cannot be read is
reported once, with the reason, and tried again when it changes. Hidden files and folders (.name) are skipped. Links to
files are followed if they stay within the folder, links to folders are not followed.

The index is a folder in ~/.cache/harvest_jax/search (or $XDG_CACHE_HOME), so that the folder of videos may be
read-only; --index names another. Each model and each rule of windows has an index of its own in it.

On a terminal the result is a table, otherwise lines of rank, cosine, path, start, end and z with tabs between them.
"""


def add_model_and_folder(parser: argparse.ArgumentParser) -> None:
    """What `harvest search` and `harvest serve` need: --model and --videos."""
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `harvest search`."""
    from data_pipeline.decode.spec import TIME_LIMIT
    from data_pipeline.decode.window_rule import WindowRule

    rule = WindowRule()
    parser.epilog = EXPLANATION
    add_model_and_folder(parser)
    parser.add_argument("words", nargs="*", metavar="QUERY", help="what to look for, in English (see below)")
    parser.add_argument("--queries", metavar="FILE", help="a query on each line; - is the standard input")
    parser.add_argument("--top", type=int, default=10, metavar="K", help="number of results (default %(default)s)")
    parser.add_argument(
        "--group",
        choices=("moment", "file"),
        default="moment",
        help="file: the best moment of each file alone (default %(default)s)",
    )
    parser.add_argument("--min_score", type=float, metavar="Z", help="results with a z of at least this alone")
    parser.add_argument("--below", metavar="FOLDER", help="files below this folder of the --videos alone")
    parser.add_argument("--after", type=_date, metavar="DATE", help="files changed on or after a date (2024-05-31)")
    parser.add_argument("--before", type=_date, metavar="DATE", help="files changed before a date")
    parser.add_argument("--min_duration", type=float, metavar="S", help="videos of at least so many seconds")
    parser.add_argument("--max_duration", type=float, metavar="S", help="videos of at most so many seconds")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each query, on one line")
    parser.add_argument("--cut", type=Path, metavar="DIR", help="copy the moments found to files, without encoding")
    parser.add_argument("--open", action="store_true", help="play the first moment found")
    parser.add_argument("--index", type=Path, metavar="DIR", help="the index (default: see below)")
    parser.add_argument("--no_update", action="store_true", help="search what is in the index, and read no video")
    parser.add_argument("--watch", action="store_true", help="keep the index current until Ctrl-C")
    parser.add_argument(
        "--window", type=float, default=rule.seconds, metavar="S", help="length of a window (default %(default)g)"
    )
    parser.add_argument("--stride", type=float, metavar="S", help="from window to window (default: half a window)")
    parser.add_argument("--workers", type=int, metavar="N", help="decoding processes (default: one for each core)")
    parser.add_argument(
        "--time_limit",
        type=float,
        default=TIME_LIMIT,
        metavar="S",
        help="processor time to decode one window (default %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    """The command; see `add_arguments`."""
    from data_pipeline.decode.window_rule import WindowRule
    from harvest_jax.search.query import parsed

    rule = WindowRule(args.window, args.window / 2 if args.stride is None else args.stride)
    _check(args)
    asked = [" ".join(" ".join(args.words).split())] if args.words else []
    for query in asked:
        parsed(query)  # a mistake is found before hours of embedding
    path = _index_path(args.index, args.videos)

    session = _Session(args, path, rule)
    if args.watch:
        return session.watch(asked)
    session.bring_up_to_date()
    if args.queries is not None:
        return session.answer_all(_lines(args.queries))
    for query in asked:
        session.answer(query)
    if not asked:
        session.prompt()
    return 0


def _check(args: argparse.Namespace) -> None:
    for name in ("top", "workers"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} {value}: at least 1")
    if not args.time_limit > 0:
        raise ConfigError(f"--time_limit {args.time_limit:g}: must be above 0")
    if args.words and not " ".join(args.words).strip():
        raise ConfigError('there are no words to search for: harvest search ... "a dog jumps over a log"')
    if args.words and args.queries is not None:
        raise ConfigError("give a query or --queries, not both")
    if args.watch and (args.queries is not None or args.no_update):
        raise ConfigError("--watch goes with neither --queries nor --no_update")
    if not args.words and args.queries is None and not args.watch and not sys.stdin.isatty():
        raise ConfigError('there are no words to search for: harvest search ... "a dog jumps over a log"')
    if args.queries not in (None, "-") and not Path(args.queries).is_file():
        raise ConfigError(f"--queries {args.queries} is not a file")


class _Session:
    """A model, a folder and its index, and what is asked of them.

    Args:
      args: the command's.
      path: the index.
      rule: its windows.
    """

    def __init__(self, args: argparse.Namespace, path: Path, rule: Any) -> None:
        from harvest_jax.search.folder import find_media

        self._args, self._path, self._rule = args, path, rule
        found = find_media(args.videos)
        self._none(found)
        import harvest_jax
        from harvest_jax.search import find, update

        self._model: Any = harvest_jax.load(args.model)
        self._made_by = update.made_by(self._model, rule)
        self._neutral = self._model.encode_text(list(find.NEUTRAL))
        self._counts = update.UpdateCounts()
        self._skipped: dict[str, int] = {}  # files that are no videos by their names, by ending
        self._searcher: find.Searcher | None = None

    def bring_up_to_date(self) -> None:
        """Read the folder, and the index."""
        from harvest_jax.search import find, printing, update
        from harvest_jax.search.folder import find_media
        from harvest_jax.search.index import open_index
        from harvest_jax.search.writer import open_writer

        args = self._args
        if args.no_update:
            index = open_index(self._path, self._made_by)
        else:
            found = find_media(args.videos)
            printing.say_skipped(found)
            self._skipped = dict(found.skipped.kinds)
            with open_writer(self._path, self._made_by) as writer:
                for note in writer.notes:
                    printing.say(note)
                workers = args.workers or available_cores()
                with progress("embedding", "files") as report:
                    self._counts = update.update(
                        writer, found, self._model, self._rule, workers, report, args.time_limit
                    )
                if writer.problem:
                    printing.say(
                        "warning: the index cannot be saved, so the next search embeds what is new again: "
                        f"{writer.problem}"
                    )
                else:
                    writer.replace()
                index = writer.index()
            printing.say_update(index, self._counts, self._path, args.videos)
        self._searcher = find.Searcher(index, self._neutral)

    def answer(self, text: str) -> None:
        """Print what was found for a query.

        Raises:
          ConfigError, DataError: the query cannot be used, or nothing in the folder can be read.
        """
        from harvest_jax.search import printing, query

        searcher, args = self._searcher, self._args
        assert searcher is not None
        index = searcher.index
        if not any(len(clip.spans) for clip in index.clips.values()):
            raise self._nothing_readable(index.unreadable() or self._counts.unreadable)
        parts = query.parsed(text)
        if query.is_cut(parts, self._model):
            limit = self._model.config.text.context_length
            printing.say(f"only the beginning of these words is used: the model reads {limit} tokens")
        asked = query.embedded(text, parts, self._model, args.time_limit)
        moments = searcher.find(asked, args.top, args.group, args.min_score, self._filters())
        baseline = searcher.baseline(asked)
        if args.json:
            about = {
                "model": str(args.model),
                "model_digest": self._model.digest,
                "videos": str(args.videos),
                "index": str(self._path),
                "windows": dataclasses.asdict(self._rule),
                "skipped": self._skipped,
            }
            folder = args.videos
            print(json.dumps(printing.as_json(text, about, index, self._counts, folder, baseline, moments)), flush=True)
        else:
            if args.queries is not None:
                print(f"# {printable(text)}")
            printing.print_results(moments, args.videos)
            sys.stdout.flush()
        if not moments:
            best = searcher.find(asked, 1, filters=self._filters())
            why = f": the best has a z of {best[0].z:.1f}" if best else ", for the filters leave no file"
            printing.say(f"nothing fits{why}")
        self._use(moments)

    def answer_all(self, lines: Iterator[str]) -> int:
        """Answer each line; one that cannot be used is said and does not stop the others. The exit code."""
        from harvest_jax.search.printing import say

        code = 0
        for line in lines:
            try:
                self.answer(line)
            except (ConfigError, DataError) as error:
                say(f"{printable(line, 100)}: {error}")
                code = code or error.exit_code
        return code

    def prompt(self) -> None:
        """Answer what is typed, until the end of the input."""
        from harvest_jax.search.printing import say

        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - gives `input` a history and editing
        while True:
            try:
                text = input("search> ").strip()
            except EOFError:
                print()
                return
            if text:
                try:
                    self.answer(text)
                except HarvestError as error:
                    say(str(error))

    def watch(self, asked: list[str]) -> int:
        """Keep the index current until the process is interrupted; answer the query after each change."""
        from harvest_jax.search import watch
        from harvest_jax.search.printing import say
        from harvest_jax.search.writer import BusyError

        rounds = watch.changes(Path(os.path.realpath(self._args.videos)))

        def current() -> None:
            try:
                self.bring_up_to_date()
            except BusyError as error:
                say(f"{error}; the next change is waited for")
                return
            for query in asked:
                try:
                    self.answer(query)
                except DataError as error:  # there may be something to find after the next change
                    say(str(error))

        watch.keep_current(rounds, current)
        return 0

    def _use(self, moments: list[Any]) -> None:
        from harvest_jax.search import cut
        from harvest_jax.search.printing import say

        for moment in moments if self._args.cut else []:
            source = self._args.videos / moment.path
            try:
                say(f"cut: {printable(cut.cut(source, moment, self._args.cut))}")
            except DataError as error:
                say(f"not cut: {printable(source)}: {printable(error)}")
        if self._args.open and moments:
            program = cut.play(self._args.videos / moments[0].path, moments[0].start)
            say(f"playing with {program}" if program else "no player was found: install mpv, or an xdg-open")

    def _filters(self) -> Any:
        from harvest_jax.search.find import Filters

        args = self._args
        below = None
        if args.below is not None:
            root = os.path.realpath(args.videos)
            below = os.path.relpath(os.path.realpath(os.path.join(root, args.below)), root)
            if below.split(os.sep)[0] == "..":
                raise ConfigError(f"--below {args.below} is not within {args.videos}")
        found = Filters(None if below == "." else below, args.after, args.before, args.min_duration, args.max_duration)
        return None if found == Filters() else found

    def _none(self, found: Any) -> None:
        from data_pipeline.media_paths import MEDIA_SUFFIXES
        from harvest_jax.search import printing

        if not found.files and not self._args.watch:
            printing.say_skipped(found)
            endings = " ".join(sorted(MEDIA_SUFFIXES))
            raise DataError(f"no videos in {self._args.videos} or below it: no name ends in {endings}")

    def _nothing_readable(self, unreadable: list[tuple[str, str]]) -> DataError:
        if not unreadable:
            return DataError(f"no videos in {self._args.videos} or below it")
        name, reason = unreadable[0]
        return DataError(
            f"none of the {len(unreadable)} files in {self._args.videos} can be read; "
            f"the first, {printable(name)}: {reason}"
        )


def _lines(file: str) -> Iterator[str]:
    with contextlib.nullcontext(sys.stdin) if file == "-" else open(file, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.strip():
                yield " ".join(line.split())


def _date(text: str) -> float:
    """Seconds since 1970 of a date or a time, of this machine's time zone if it names none."""
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"expected a date like 2024-05-31, got {printable(text, 80)!r}") from None


def _index_path(asked: Path | None, folder: Path) -> Path:
    """The index's folder; the folder that holds it is made. Mistakes are found here, before hours of embedding.

    Raises:
      ConfigError: --index names something that cannot be an index.
    """
    from data_pipeline.media_paths import MEDIA_SUFFIXES
    from harvest_jax.search.index import default_path

    path = asked or default_path(folder)
    if asked is None:
        with contextlib.suppress(OSError):  # reported when the index is saved; the search works without
            path.parent.mkdir(parents=True, exist_ok=True)
        return path
    if path.suffix.lower() in MEDIA_SUFFIXES and not path.is_dir():
        raise ConfigError(f"--index {path} is named like a video and would be overwritten: name another folder")
    if path.is_file() and not _is_old_index(path):
        raise ConfigError(f"--index {path} is a file, and not an index of an earlier version: name a folder")
    if path.is_dir() and not (path / "lock").exists() and not _may_be_index(path):
        raise ConfigError(f"--index {path} is a folder that holds something else: name a new one")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() and not os.access(path.parent, os.W_OK):
        raise ConfigError(f"--index {path} cannot be written: name a folder elsewhere")
    return path


def _may_be_index(path: Path) -> bool:
    entries = list(path.iterdir())
    return not entries or any((entry / "index.sqlite").exists() for entry in entries)


def _is_old_index(path: Path) -> bool:
    """Whether a file is an index of version 0.1.0, or its beginning."""
    with path.open("rb") as file:
        head = file.read(100_000)
    return not head or b"harvest_jax search index" in head
