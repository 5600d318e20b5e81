"""The generated world's image models as the package holds them: harvest_jax/synthetic/image_models/, in half precision.

python benchmarks/claims.py --root runs/claims --only dropping image_models    # trains them, if they are not there
python benchmarks/package_image_models.py --root runs/claims
"""

import argparse
import json
from pathlib import Path

import numpy as np

from benchmarks.claims_lab import STILL_SPLITS
from harvest_jax.weights.folder import load_model, save_model

PACKAGED = Path(__file__).resolve().parents[1] / "harvest_jax/synthetic/image_models"
SPLITS = ("stills", "unmarked")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="the folder of benchmarks/claims.py")
    args = parser.parse_args()
    for split in SPLITS:
        workdir = args.root / f"image_{split}"
        config, params = load_model(workdir / "export")
        run = json.loads((workdir / "config.json").read_text("utf-8"))
        origin = {
            "made_by": "world_image" if split == "stills" else f"world_image:{split}",
            "steps": run["train"]["steps"],
            "batch_size": run["train"]["batch_size"],
            "seed": run["seed"],
            "pictures": STILL_SPLITS[split],
        }
        save_model(PACKAGED / split, config, params, origin, np.float16)
        print(f"{PACKAGED / split}")


if __name__ == "__main__":
    main()
