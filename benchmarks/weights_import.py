r"""Seconds and memory of `harvest weights import` for a whole CLIP in its published file format, random weights.

    python benchmarks/weights_import.py                         # L/14, float16 as OpenAI published it
    python benchmarks/weights_import.py --size H/14 --form safetensors --float32 --json runs/import_h14.json

The file is written first: a TorchScript archive (`--form archive`, OpenAI's format; needs torch), a torch state_dict
(`--form state_dict`; needs torch) or safetensors. Then the command runs in a process of its own, whose peak resident
memory (mapped pages of the source among it) is what the kernel reports when it ends; `imports_rss` is what Python and
the imports alone take. The file was just written, so it is in the page cache: a cold disk adds its reading time.
"""

import argparse
import importlib.util
import itertools
import json
import math
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from harvest_jax.model.config import harvest_config
from harvest_jax.model.harvest import parameter_shapes
from harvest_jax.weights.families.openai import OPENAI
from harvest_jax.weights.files.safetensors_writer import write_safetensors
from harvest_jax.weights.files.tensors import Tensors, TensorSpec
from harvest_jax.weights.translate import to_family

FORMS = {"archive": ".pt", "state_dict": ".pt", "safetensors": ".safetensors"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="L/14", help="one of the named sizes (default: L/14)")
    parser.add_argument("--form", choices=FORMS, help="default: archive where torch is installed, else safetensors")
    parser.add_argument("--float32", action="store_true", help="all numbers float32 instead of float16")
    parser.add_argument("--runs", type=int, default=3, help="imports, of which the middle one in time is reported")
    parser.add_argument("--workdir", type=Path, help="where the files are written (default: a temporary folder)")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    args = parser.parse_args()
    form = args.form or ("archive" if importlib.util.find_spec("torch") else "safetensors")
    with tempfile.TemporaryDirectory(dir=args.workdir) as scratch:
        source = Path(scratch) / f"clip{FORMS[form]}"
        dtype = np.dtype(np.float32 if args.float32 else np.float16)
        writer = multiprocessing.get_context("spawn").Process(
            target=write_checkpoint, args=(source, args.size, form, dtype)
        )
        writer.start()
        writer.join()
        if writer.exitcode:
            sys.exit("the checkpoint could not be written")
        harvest = [sys.executable, "-m", "harvest_jax", "weights"]
        command = [*harvest, "import", str(source), "--activation", harvest_config(args.size).video.activation, "--out"]
        runs = sorted(measure([*command, str(Path(scratch) / f"out{number}")]) for number in range(args.runs))
        _, _, imports = measure([sys.executable, "-c", "import harvest_jax.weights.import_checkpoint"])
        size, peak = source.stat().st_size, max(rss for _, _, rss in runs)
        figures = {
            "size": args.size,
            "form": form,
            "dtype": "float32" if args.float32 else "float16",
            "file_bytes": size,
            "written_bytes": sum(path.stat().st_size for path in (Path(scratch) / "out0").iterdir()),
            "seconds": round(runs[len(runs) // 2][0], 2),
            "seconds_all": [round(seconds, 2) for seconds, _, _ in runs],
            "cpu_seconds": round(runs[len(runs) // 2][1], 2),
            "peak_rss": peak,
            "peak_over_file": round(peak / size, 3),
            "imports_rss": imports,
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
        }
    text = json.dumps(figures, indent=2)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(text + "\n", encoding="utf-8")
    print(text)


def measure(command: list[str]) -> tuple[float, float, int]:
    """(seconds, seconds of CPU time, bytes of peak resident memory) of a process."""
    start = time.perf_counter()
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    pid = os.posix_spawn(command[0], command, os.environ | {"JAX_PLATFORMS": "cpu"}, file_actions=quiet)
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def named_arrays(size: str, dtype: np.dtype) -> Iterator[tuple[str, np.ndarray]]:
    """OpenAI's names with random numbers of the usual scale, one at a time; norms and tables stay float32 as there."""
    config = harvest_config(size, num_frames=1, decoder_layers=0)
    shapes = {name: TensorSpec(shape, np.dtype(np.float32)) for name, shape in parameter_shapes(config).items()}
    theirs = to_family(Tensors("", "", shapes, lambda name: np.zeros(0)), OPENAI, config)
    rng = np.random.default_rng(0)
    for name, entry in theirs.entries.items():
        array = rng.standard_normal(entry.shape, np.float32) * np.float32(0.02)
        keeps = ".ln_" in name or name.startswith(("ln_", "logit")) or "embedding" in name
        yield name, np.asarray(array, np.float32 if keeps else dtype)


def write_checkpoint(path: Path, size: str, form: str, dtype: np.dtype) -> None:
    if form == "safetensors":
        arrays = dict(named_arrays(size, dtype))
        entries = {name: TensorSpec(array.shape, array.dtype) for name, array in arrays.items()}
        write_safetensors(path, entries, arrays.__getitem__, {"format": "pt"})
        return
    import torch

    tensors = {name: torch.from_numpy(np.array(array)) for name, array in named_arrays(size, dtype)}
    if form == "state_dict":
        torch.save(tensors, path)
        return
    torch.jit.save(torch.jit.script(module_of(tensors, torch)), path)


def module_of(tensors, torch):
    """Modules without a forward whose parameters have these names."""
    root = torch.nn.Module()
    for name, tensor in tensors.items():
        *way, last = name.split(".")
        at = root
        for step, following in itertools.pairwise([*way, last]):
            if step not in at._modules:
                at.add_module(step, torch.nn.ModuleList() if following.isdecimal() else torch.nn.Module())
            at = at._modules[step]
        at.register_parameter(last, torch.nn.Parameter(tensor, requires_grad=False))
    assert sum(math.prod(p.shape) for p in root.parameters()) == sum(t.numel() for t in tensors.values())
    return root


if __name__ == "__main__":
    main()
