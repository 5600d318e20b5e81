"""`harvest eval --suite`: all benchmarks of a suite that lie below a folder, one result each, and their table."""

import argparse
import dataclasses
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harvest_jax.config.files import load_dict
from harvest_jax.errors import ConfigError, DataError, HarvestError
from harvest_jax.evaluate import evaluation
from harvest_jax.evaluate.clips.embedding_store import EmbeddingStore, check_root, store_for
from harvest_jax.evaluate.clips.embeddings import VideoTextModel
from harvest_jax.evaluate.clips.evaluation_set import EvaluationSet, check_all_there, open_set
from harvest_jax.evaluate.devices import on_all_devices
from harvest_jax.evaluate.masked_questions import MaskedSettings
from harvest_jax.evaluate.report.grids import report
from harvest_jax.evaluate.report.result_files import read_result
from harvest_jax.evaluate.report.show import terminal, terminal_width
from harvest_jax.evaluate.result.protocol import digest
from harvest_jax.evaluate.result.provenance import file_facts
from harvest_jax.evaluate.result.results import check_writable
from harvest_jax.evaluate.settings import TaskSettings
from harvest_jax.evaluate.suites import Absent, Present, absent_lines, find_suite, look_below
from harvest_jax.terminal import one_line, printable, progress
from harvest_jax.version import __version__

# The fields that every evaluation has and that do not say where its data is.
FIELDS = ("frames", "batch_size", "strict", "seed", "data.workers", "data.partial", "data.split")


def run_suite(args: argparse.Namespace) -> int:
    """The command; see `command.add_arguments`."""
    entries = find_suite(args.suite)
    root, overrides = _fields(args.overrides)
    wrong = [f"--{name}" for name in ("model", "out") if getattr(args, name) is None]
    if wrong:
        raise ConfigError(f"--suite needs {' and '.join(wrong)}: --model DIR, and --out DIR for the results")
    if args.config is not None:
        raise ConfigError("give --suite or --config: a suite has the configs of its benchmarks")
    if args.out.exists() and not args.out.is_dir():
        raise ConfigError(f"--out {args.out} is a file: --suite writes several results into a folder")
    check_writable(args.out / "result.json")
    if args.store is not None:
        check_root(args.store)
    if not root.is_dir():
        raise DataError(f"no folder {root}: data.root is the folder with a folder for each dataset")
    present, absent = look_below(root, entries)
    if not present:
        _show_absent(absent)
        raise DataError(f"no benchmark of the suite {args.suite} lies below {root}: see the list above")
    scored = _Suite(args.out, args.again, args.command_line)
    opened = [(one, *found) for one in present if (found := scored.opened(one, overrides, args.allow_missing))]
    if opened:
        import harvest_jax

        model = harvest_jax.load(args.model)
        with store_for(args.store, model.digest) as store:
            for one, settings, data, missing in opened:
                scored.score(one, settings, data, missing, model, store)
    _show(scored, absent)
    if scored.failed:
        count = f"{len(scored.failed)} of {len(present)} benchmarks"
        raise DataError(f"{count} could not be scored, their errors are above: {', '.join(scored.failed)}")
    return 0


def _fields(overrides: Sequence[str]) -> tuple[Path, list[str]]:
    """data.root, and the other fields.

    Raises:
      ConfigError: there is no data.root, or a field that a suite cannot set.
    """
    root = ""
    others = []
    for override in overrides:
        name, _, value = override.partition("=")
        if name == "data.root":
            root = value
        elif name in FIELDS:
            others.append(override)
        else:
            raise ConfigError(f"--suite takes no --config.{printable(name, 60)}, only data.root, {', '.join(FIELDS)}")
    if not root:
        raise ConfigError("--suite needs --config.data.root=DIR, the folder with a folder for each dataset")
    return Path(root), others


class _Suite:
    """What was scored so far.

    Attributes:
      out: folder of the results.
      written: files of results, in the order of the suite.
      failed: names of benchmarks, whose errors were shown.
      unfit: lines about benchmarks that the model cannot do.
    """

    def __init__(self, out: Path, again: bool, command: Sequence[str]) -> None:
        self.written: list[Path] = []
        self.failed: list[str] = []
        self.unfit: list[str] = []
        self.out, self._again, self._command = out, again, command

    def opened(
        self, one: Present, overrides: Sequence[str], allow_missing: bool
    ) -> tuple[TaskSettings, EvaluationSet, dict[int, str]] | None:
        """The settings of a benchmark, its set, and the clips that are not there with the reasons.

        None if they cannot be used, after the error was shown.
        """
        try:
            config = load_dict(f"eval/{one.benchmark.name}", [*overrides, *one.overrides], "evaluation")
            settings = evaluation.check(config)
            data = open_set(settings.data, settings.given_files)
            missing = data.reader.absent()
            if not allow_missing:
                check_all_there(data, missing)
        except (HarvestError, OSError) as error:
            self._fail(one, error)
            return None
        return settings, data, missing

    def score(
        self,
        one: Present,
        settings: TaskSettings,
        data: EvaluationSet,
        missing: Mapping[int, str],
        model: VideoTextModel,
        store: EmbeddingStore | None = None,
    ) -> None:
        """Score a benchmark and write its result, unless there is one already; an error is shown."""
        if isinstance(settings, MaskedSettings) and model.config.decoder is None:
            self.unfit.append(f"{one.benchmark.title}: {model.name} has no decoder, so that it cannot answer questions")
            return
        try:
            asked = request(settings, data, missing, model)
            path = self.out / f"{one.benchmark.name}-{asked[:12]}.json"
            if self._again or not _is_result_of(path, asked, settings.strict):
                placed, batches = on_all_devices(model, settings)
                with progress(one.benchmark.name, "clips") as update:
                    result = evaluation.evaluate(batches, placed, data, update, self._command, store)
                dataclasses.replace(result, run=result.run | {"request": asked}).write(path)
                print(f"{one.benchmark.name}: written to {printable(path)}", flush=True)
                self.written.append(path)
                if settings.strict and result.faults:
                    raise DataError(f"strict=True: {'; '.join(result.faults)}")
            else:
                print(f"{one.benchmark.name}: kept {printable(path)} (--again scores anew)", flush=True)
                self.written.append(path)
        except (HarvestError, OSError) as error:
            self._fail(one, error)

    def _fail(self, one: Present, error: Exception) -> None:
        self.failed.append(one.benchmark.name)
        print(f"{one.benchmark.name}: {printable(one_line(error))}", file=sys.stderr, flush=True)


def request(settings: TaskSettings, data: EvaluationSet, missing: Mapping[int, str], model: VideoTextModel) -> str:
    """sha256 (hex) of what is known of a result before it is computed; a result with the same one is kept.

    It covers the weights, the settings, the benchmark, the content of its annotation files, which videos are missing,
    and the program's version, but not the content of the videos, which would have to be read for it.
    """
    fields: dict[str, Any] = dataclasses.asdict(settings)
    for name in ("annotations", "videos", "shards", "workers"):
        del fields["data"][name]
    for name in ("batch_size", "strict"):
        del fields[name]
    facts = {purpose: fact.get("sha256", fact["name"]) for purpose, fact in file_facts(data.files).items()}
    absent = sorted(str(data.clips[number].key) for number in missing)
    return digest([model.digest, fields, dict(data.benchmark), data.kind, facts, absent, __version__])


def _is_result_of(path: Path, asked: str, strict: bool) -> bool:
    """Whether there is a whole result with its table, without warnings if `strict`; a damaged one is written anew."""
    try:
        result = read_result(path)
    except DataError:
        return False
    fit = not (strict and result.warnings)
    return fit and result.queries is not None and result.content["run"].get("request") == asked


def _show(scored: _Suite, absent: Sequence[Absent]) -> None:
    if scored.written:
        shown = report([read_result(path) for path in scored.written])
        headlines = dataclasses.replace(shown, grids=shown.grids[:1])
        print("\n".join(["", *terminal(headlines, terminal_width())]))
        print(f"all scores: harvest results {printable(scored.out)}")
        for text in shown.warnings:
            print(f"warning: {printable(text)}", file=sys.stderr)
    for text in scored.unfit:
        print(f"not scored: {printable(text)}")
    _show_absent(absent)


def _show_absent(absent: Sequence[Absent]) -> None:
    """What is not there and where to get it; addresses stay whole."""
    if absent:
        print("\nnot there:")
    wrapper = textwrap.TextWrapper(
        terminal_width(), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    for line in absent_lines(absent):
        print("\n".join(wrapper.wrap(f"- {printable(line)}")))
