"""`harvest eval`: a config, a model and an evaluation set in; a table on the terminal and the result as JSON out."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

EXAMPLES = """examples:
  harvest eval --config configs/eval/retrieval.py --model runs/demo/export --config.data.manifest=test.csv --out r.json
  harvest eval --config configs/eval/zero_shot.py --model runs/demo/export --config.data.manifest=val.csv \\
      --config.classes=classes.txt --config.prompts=kinetics_28

Two results are comparable where their protocol_hash is the same. A video that cannot be read counts as wrong.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `harvest eval`."""
    parser.epilog = EXAMPLES
    parser.usage = "harvest eval --config FILE --model DIR [--out FILE] [--config.FIELD=VALUE ...]"
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="one of configs/eval/; they explain their fields"
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="model folder")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the result there; else the last line printed")
    parser.set_defaults(overrides=[])  # filled with what follows --config.


def run(args: argparse.Namespace) -> int:
    """The command; see `add_arguments`."""
    from harvest_jax.config.files import load_dict
    from harvest_jax.errors import ConfigError
    from harvest_jax.evaluate import results
    from harvest_jax.evaluate.clips import open_set
    from harvest_jax.evaluate.settings import check
    from harvest_jax.evaluate.tasks import evaluate

    settings = check(load_dict(args.config, args.overrides, "evaluation"))
    if args.out is not None:  # found out now, not after an hour
        if args.out.is_dir():
            raise ConfigError(f"--out {args.out} is a folder: name a file")
        args.out.parent.mkdir(parents=True, exist_ok=True)
    data = open_set(settings.data)

    import harvest_jax

    result = evaluate(settings, harvest_jax.load(args.model), data, Progress(sys.stderr))
    print(table(result))
    if args.out is None:
        print(json.dumps(result, ensure_ascii=False))
    else:
        results.write(args.out, result)
        print(f"written to {args.out}")
    return 0


class Progress:
    """Clips read so far, on a terminal, twice a second at most."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Say where it stands."""
        if self.stream.isatty() and (done == total or time.monotonic() - self.last > 0.5):
            self.last = time.monotonic()
            print(f"\r{done}/{total} clips", end="\n" if done == total else "", file=self.stream, flush=True)


def table(result: dict[str, Any]) -> str:
    """The result for people: what was scored, its figures, and what to know about them."""
    data = result["protocol"]["data"]
    split = f", split {data['split']}" if data["split"] else ""
    lines = [
        f"{result['task']} of {result['model']} on {data['name']} ({data['kind']}{split}): "
        f"{result['n_expected']} expected, {result['n_missing']} missing"
    ]
    lines += ["", *_block(result["metrics"])]
    lines += [f"warning: {text}" for text in result["warnings"]]
    lines.append(f"protocol {result['protocol_hash'][:12]}")
    return "\n".join(lines)


def _block(metrics: dict[str, Any]) -> list[str]:
    if "t2v" in metrics:
        directions = {"text to video": metrics["t2v"], "video to text": metrics["v2t"]}
        if "dual_softmax" in metrics:
            boosted, scale = metrics["dual_softmax"], f"{metrics['dual_softmax']['scale']:g}"
            directions[f"t2v, dual softmax {scale}"] = boosted["t2v"]
            directions[f"v2t, dual softmax {scale}"] = boosted["v2t"]
        columns = ("R@1", "R@5", "R@10", "MedR", "MnR", "n_queries", "n_tied_queries")
        return _columns(columns, directions)
    plain = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    lines = [f"{name:<24}{_number(value):>10}" for name, value in plain.items()]
    for name in ("per_type",):
        if name in metrics:
            columns = tuple(next(iter(metrics[name].values())))
            lines += ["", *_columns(columns, metrics[name])]
    return lines


def _columns(columns: tuple[str, ...], rows: dict[str, dict[str, Any]]) -> list[str]:
    width = max(20, *(len(name) + 2 for name in rows))
    head = " " * width + "".join(f"{column:>{max(10, len(column) + 2)}}" for column in columns)
    body = [
        f"{name:<{width}}" + "".join(f"{_number(row[column]):>{max(10, len(column) + 2)}}" for column in columns)
        for name, row in rows.items()
    ]
    return [head, *body]


def _number(value: float | int) -> str:
    return str(value) if isinstance(value, int) else f"{value:.2f}"
