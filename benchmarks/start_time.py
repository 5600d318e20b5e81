"""From the command to the end of its first step, when a killed training goes on: with and without kept programs.

    python benchmarks/start_time.py                   # CPU; seven starts of about half a minute each

A run of the demo's config is killed after its first checkpoint, and goes on several times until its next step: by
turns with the compiled programs that the first attempt kept, and with JAX_ENABLE_COMPILATION_CACHE=false. `seconds` is
measured from the start of the process; the parts are those of events.jsonl, which begin after the interpreter's start.
"""

import argparse
import collections
import json
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.this_machine import this_machine
from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.files import write_atomically
from harvest_jax.train.goodput import KINDS, read_events
from tests.helpers.train_command import HARVEST, ROOT, environment

SHARDS = ROOT / "tests/data/version_0_1_0/shards"  # 8 clips: a batch repeats them
LONGEST = 900.0  # seconds of an attempt
NOT_KEPT = {"JAX_ENABLE_COMPILATION_CACHE": "false"}


def attempt(workdir: Path, variables: Mapping[str, str], until: str) -> dict[str, Any]:
    """Start the training and kill it at its first event `until`; the seconds to its first step, and by kind."""
    events = Workdir(workdir).events
    before = len(read_events(events))
    command = [*HARVEST, "train", "--config", "demo", "--workdir", str(workdir), f"--config.data.shards={SHARDS}"]
    command += [f"--config.model.init_from={ROOT / 'harvest_jax/demo/data/image_clip'}", "--config.train.save_every=1"]
    began = time.time()
    with open(workdir.with_suffix(".log"), "ab") as log:
        process = subprocess.Popen(command, env=environment(**variables), cwd=ROOT, stdout=log, stderr=log)
    try:
        while not any(line["event"] == until for line in read_events(events)[before:]):
            if process.poll() is not None or time.time() - began > LONGEST:
                raise SystemExit(f"no event {until}: see {workdir.with_suffix('.log')}")
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    parts: collections.Counter[str] = collections.Counter()
    for line in read_events(events)[before:]:
        parts.update(line.get("spent", {}))
        if line["event"] == "steps":
            return {"seconds": round(line["time"] - began, 2), **{kind: round(parts[kind], 2) for kind in parts}}
    raise SystemExit(f"no step before the event {until}: see {workdir.with_suffix('.log')}")


def main() -> None:
    """Print a line for each attempt, and write all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3, metavar="N", help="of each, by turns (3)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/start_time_cpu.json")
    args = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {"first": [], "without": [], "with": []}
    with tempfile.TemporaryDirectory() as scratch:
        kept = {"XDG_CACHE_HOME": f"{scratch}/cache"}
        ways = [("first", kept, "save_end"), *[("without", NOT_KEPT, "steps"), ("with", kept, "steps")] * args.times]
        for name, variables, until in ways:
            found[name].append(attempt(Path(scratch, "run"), variables, until))
            print(name, json.dumps(found[name][-1]), flush=True)
    medians = {name: statistics.median(one["seconds"] for one in rows) for name, rows in found.items()}
    about = {"command": "python benchmarks/start_time.py", "config": "demo", "machine": this_machine()}
    result = about | {"kinds": KINDS, "median_seconds": medians, "attempts": found}
    write_atomically(args.out, (json.dumps(result, indent=1) + "\n").encode())
    print(
        f"a restart's first step is done {medians['with']:.1f} s after the command with kept programs, "
        f"{medians['without']:.1f} s without (medians of {args.times})"
    )


if __name__ == "__main__":
    main()
