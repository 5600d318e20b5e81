"""What the digest of a model folder costs at a load: a B/16 of video, float32, in CPU seconds.

    python benchmarks/weights_digest.py --workdir /dev/shm

Writes a folder of zeros (their value changes nothing), loads it three times, and removes it. The digest is a part of
the load; it is measured by itself as well. The file is in memory, so that the disk is not measured.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from harvest_jax.model.config import harvest_config
from harvest_jax.model.harvest import parameter_shapes
from harvest_jax.weights.files.open_checkpoint import CONFIG, read_json
from harvest_jax.weights.files.tensors import TensorSpec
from harvest_jax.weights.files.weights_digest import digest_holds
from harvest_jax.weights.folder import WEIGHTS, load_model, save_tensors

TURNS = 3


def seconds(call: Callable[[], object]) -> float:
    """Median of the CPU seconds of a call."""
    found = []
    for _ in range(TURNS):
        began = time.process_time()
        call()
        found.append(time.process_time() - began)
    return statistics.median(found)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True)
    args = parser.parse_args()
    config = harvest_config("B/16", num_frames=8, decoder_layers=0)
    shapes = parameter_shapes(config)
    entries = {name: TensorSpec(shape, np.dtype(np.float32)) for name, shape in shapes.items()}
    with tempfile.TemporaryDirectory(dir=args.workdir) as scratch:
        folder = Path(scratch) / "model"
        save_tensors(folder, config, entries, lambda name: np.zeros(shapes[name], np.float32), {})
        digest = seconds(lambda: digest_holds(folder / WEIGHTS, read_json(folder / CONFIG)))
        load = seconds(lambda: load_model(folder))
        size = (folder / WEIGHTS).stat().st_size
    rate = size / digest / 1e9
    print(f"{size / 1e9:.2f} GB: load {load:.2f} CPU seconds, of which the digest {digest:.2f} ({rate:.1f} GB/s)")


if __name__ == "__main__":
    main()
