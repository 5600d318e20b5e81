"""Peak memory of a training start: from nothing to the state at step 0, on 8 devices of the CPU with fsdp=8.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python benchmarks/start_memory.py --size L/14 \
        --out benchmarks/results/start_memory.json

Each case runs in a process of its own. `peak_bytes` is the growth of the process's resident memory (VmHWM) from before
the start; `state_bytes` is what must lie there at the end (parameters and optimizer state, once over all devices).
`largest_device_bytes` is the most that one device holds at the end. With --digest the parameters are hashed, too, to
compare two versions of the program.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DEVICES = 8


def memory(field: str) -> int:
    """A field of /proc/self/status ("VmHWM", "VmRSS") in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def start(size: str, init_from: str, digest: bool) -> dict[str, Any]:
    """Make the state at step 0 in this process, as `harvest train` does, and measure."""
    import jax

    from harvest_jax.checkpoint.tree_digest import tree_digest
    from harvest_jax.config.files import config_file
    from harvest_jax.config.run import load
    from harvest_jax.train.initial_state import initial_state
    from harvest_jax.train.program import train_program

    fields = [f"model.size={size}", "mesh.fsdp=8", "train.batch_size=8", "model.dtype=float32"]
    run = load(str(config_file("base.py")), [*fields, f"model.init_from={init_from}"])
    program = train_program(run)
    jax.block_until_ready(jax.jit(lambda x: x + 1)(0))  # not counted: JAX itself
    before = memory("VmRSS")
    state, frozen = jax.block_until_ready(initial_state(program))
    peak = memory("VmHWM") - before
    leaves = jax.tree.leaves((state, frozen))
    devices: dict[Any, int] = {}
    for leaf in leaves:
        for shard in leaf.addressable_shards:
            devices[shard.device] = devices.get(shard.device, 0) + shard.data.nbytes
    found = {
        "peak_bytes": peak,
        "state_bytes": sum(leaf.nbytes for leaf in leaves),
        "largest_device_bytes": max(devices.values()),
    }
    return found | ({"digest": tree_digest((state.params, frozen))} if digest else {})


def write_model(size: str, folder: Path) -> None:
    """A model folder of a named size with random parameters, as an imported CLIP: one frame, no decoder."""
    import numpy as np

    from harvest_jax.model.config import harvest_config
    from harvest_jax.model.harvest import parameter_shapes
    from harvest_jax.weights.files.tensors import TensorSpec
    from harvest_jax.weights.folder import save_tensors

    config = harvest_config(size, num_frames=1, decoder_layers=0)
    shapes = parameter_shapes(config)
    entries = {path: TensorSpec(shape, np.dtype(np.float32)) for path, shape in shapes.items()}
    numbers = {path: number for number, path in enumerate(shapes)}

    def read(path: str) -> np.ndarray:
        values = np.random.default_rng(numbers[path]).standard_normal(shapes[path], np.float32)
        return np.asarray(0.02 * values, np.float32)

    save_tensors(folder, config, entries, read, {"made_by": "benchmarks/start_memory.py"})


def main() -> None:
    """Print one JSON object a case, and write all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="L/14")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--digest", action="store_true", help="also hash the parameters")
    parser.add_argument("--case", choices=("random", "folder"), help="only one; measured in this process")
    parser.add_argument("--folder", type=Path, help="model folder of --case folder")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(start(args.size, str(args.folder or ""), args.digest)))
        return
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        write_model(args.size, Path(scratch) / "model")
        for case in ("random", "folder"):
            command = [sys.executable, __file__, "--size", args.size, "--case", case]
            command += ["--digest"] if args.digest else []
            command += ["--folder", f"{scratch}/model"] if case == "folder" else []
            flags = f"--xla_force_host_platform_device_count={DEVICES}"
            environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            rows[case] = json.loads(done.stdout.splitlines()[-1])
            print(case, json.dumps(rows[case]), flush=True)
    if args.out:
        found = {"size": args.size, "devices": DEVICES, "fsdp": DEVICES, **rows}
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
