"""`harvest eval`: scores a model on an evaluation set; writes the result as JSON and prints a table."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.terminal import printable, progress

if TYPE_CHECKING:
    from harvest_jax.evaluate.result.results import EvaluationResult

EXAMPLES = """examples:
  harvest eval --config eval/retrieval --model runs/demo/export --config.data.manifest=test.csv --out r.json
  harvest eval --config eval/msrvtt_1ka --model runs/demo/export --config.data.videos=videos \\
      --config.data.annotations=annotations --out r.json
  harvest eval --config eval/zero_shot --model runs/demo/export --config.data.manifest=val.csv \\
      --config.classes=classes.txt --config.prompts=kinetics_28
  harvest eval --suite paper --model runs/demo/export --config.data.root=benchmarks --out results

Results with the same protocol_hash can be compared. A video that cannot be read counts as wrong; one that is not there
at all is an error without --allow_missing. `harvest results` makes tables of results.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `harvest eval`."""
    parser.epilog = EXAMPLES
    parser.usage = (
        "harvest eval --config FILE --model DIR [--out FILE] [--store DIR] [--allow_missing] [--config.FIELD=VALUE ...]"
        "\n       harvest eval --suite paper --model DIR --config.data.root=DIR --out DIR [--store DIR] [--again]"
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="config file, or a packaged one: a task (eval/retrieval, eval/multiple_choice, eval/clip_choice, "
        "eval/pairs, eval/reversal, eval/zero_shot, eval/linear_probe, eval/videoqa, eval/counting) or a benchmark "
        "(eval/msrvtt_1ka)",
    )
    parser.add_argument("--model", metavar="DIR", help="model folder, or WORKDIR[@STEP|@best] of a training")
    parser.add_argument(
        "--list", action="store_true", help="show all benchmarks, what they need and where it comes from"
    )
    parser.add_argument(
        "--suite", metavar="NAME", help="score all benchmarks of a suite (paper) that lie below --config.data.root"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="file for the result; without it the last line printed. With --suite: the folder for the results",
    )
    parser.add_argument("--again", action="store_true", help="with --suite: score again what has a result already")
    parser.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        help="folder that keeps embeddings: clips and texts that this model has embedded before, in any evaluation, "
        "are not embedded again, and a killed evaluation continues",
    )
    parser.add_argument(
        "--allow_missing", action="store_true", help="score although videos are not there: they count as wrong"
    )
    parser.set_defaults(overrides=[])  # the command line's --config.FIELD=VALUE


def run(args: argparse.Namespace) -> int:
    """The command; see `add_arguments`."""
    if args.list:
        from harvest_jax.evaluate.benchmarks.named import listing

        print("\n".join(listing()))
        return 0
    if args.suite is not None:
        from harvest_jax.evaluate.suite_command import run_suite

        return run_suite(args)
    if args.again:
        raise ConfigError("--again belongs to --suite: without it every call scores anew")
    needed = [f"--{name}" for name in ("config", "model") if getattr(args, name) is None]
    if needed:
        raise ConfigError(f"give {' and '.join(needed)} (harvest eval --help), or --list for the benchmarks")

    from harvest_jax.config.files import load_dict
    from harvest_jax.evaluate import evaluation
    from harvest_jax.evaluate.clips.embedding_store import check_root, store_for
    from harvest_jax.evaluate.clips.evaluation_set import check_all_there, open_set
    from harvest_jax.evaluate.devices import on_all_devices
    from harvest_jax.evaluate.result.results import check_writable
    from harvest_jax.weights.mistaken_path import check_may_be_config

    check_may_be_config(args.config)
    settings = evaluation.check(load_dict(args.config, args.overrides, "evaluation"))
    if args.out is not None:
        check_writable(args.out)  # now, not after an hour
    if args.store is not None:
        check_root(args.store)
    data = open_set(settings.data, settings.given_files)
    if not args.allow_missing:
        check_all_there(data, data.reader.absent())

    import harvest_jax

    model, settings = on_all_devices(harvest_jax.load(args.model), settings)
    with store_for(args.store, model.digest) as store, progress("evaluation", "clips") as update:
        result = evaluation.evaluate(settings, model, data, update, args.command_line, store)
    if args.out is not None:
        result.write(args.out)  # before anything is printed: the terminal may be gone
    print("\n".join(table(result)))
    print(json.dumps(result.to_dict()) if args.out is None else f"written to {printable(args.out)}")
    if settings.strict and result.faults:
        raise DataError(f"strict=True: {'; '.join(result.faults)}")
    return 0


def table(result: "EvaluationResult") -> list[str]:
    """The result for a reader: what was scored, the scores, the warnings, and the protocol's hash."""
    from harvest_jax.evaluate.evaluation import load_task

    data = result.data
    split = f", split {data['split']}" if data["split"] else ""
    return [
        printable(f"{result.task} of {result.model['name']} on {data['name']} ({data['kind']}{split}): ")
        + f"{result.n_expected} expected, {result.n_missing} missing",
        "",
        *load_task(result.task).table(result.metrics),
        *(f"warning: {printable(text)}" for text in result.warnings),
        *_store_lines(result.run.get("store")),
        f"protocol {result.protocol_hash[:12]}",
    ]


def _store_lines(store: Mapping[str, Any] | None) -> list[str]:
    if store is None:
        return []
    if not store:
        return ["nothing was taken from the store: this task needs no embeddings"]
    taken, computed = (sum(facts[kind] for facts in store.values()) for kind in ("from_store", "computed"))
    return [f"{taken:,} of {taken + computed:,} embeddings came from the store"]
