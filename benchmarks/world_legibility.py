"""Whether what the pictures of both looks of the generated world show can be read off them, by a small classifier.

    python -m benchmarks.world_legibility --out benchmarks/results/world_legibility.json

Each picture shows one thing in the middle, that stands. A support vector machine on histograms of edge directions and
on coarse pixels learns from pictures of the training part and is tested on pictures of the test part (other digits and
other parts of the photographs; drawn pictures have no parts). For each look and factor: the percentage that it names
rightly; "shape turned" is of things turned by up to 92 degrees to either side, as far as a clip turns them. One line of
JSON. Needs the extra harvest_jax[world].
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from harvest_jax.synthetic import WORLD_VERSION, sample
from harvest_jax.synthetic.dice import Dice
from harvest_jax.synthetic.draw import render_still
from harvest_jax.synthetic.rows import LOOKS, World
from harvest_jax.synthetic.scene import STANDS, Scene

FACTORS = ("colour", "shape", "size", "texture", "ground")
TURNED = 92.0  # degrees: up to 12 at rest, and a turn of 80
CELL, DIRECTIONS = 4, 9  # pixels, bins


def edges(picture: np.ndarray) -> np.ndarray:
    """Histograms of the directions of edges in cells of the picture [s, s, 3]: each pixel's strongest channel."""
    down, right = np.gradient(picture.astype(np.float32), axis=(0, 1))
    strongest = np.hypot(down, right).argmax(-1)[..., None]
    down, right = (np.take_along_axis(values, strongest, -1)[..., 0] for values in (down, right))
    directions = (np.arctan2(down, right) / np.pi % 1 * DIRECTIONS).astype(int) % DIRECTIONS
    cells = np.indices(down.shape) // CELL
    found = np.zeros((*(side // CELL for side in down.shape), DIRECTIONS), np.float32)
    np.add.at(found, (*cells, directions), np.hypot(down, right))
    return np.sqrt(found).ravel()


def features(picture: np.ndarray) -> np.ndarray:
    """Of a picture of 64 pixels: edges and pixels of its middle, and coarse pixels of all of it."""
    coarse = [
        np.asarray(Image.fromarray(p).resize(size))
        for p, size in ((picture[16:48, 16:48], (16, 16)), (picture, (8, 8)))
    ]
    return np.concatenate([edges(picture[12:52, 12:52]), *(np.ravel(pixels) / 255.0 for pixels in coarse)])


def still(seed: int, split: str, number: int, turned: bool) -> Scene:
    """A scene of one thing in the middle."""
    scene = sample.one(sample.dice_of(seed, split, number), held=False, actions=(STANDS,))
    angle = Dice("angle", seed, split, number).between(-TURNED, TURNED) if turned else scene.things[0].angle
    return dataclasses.replace(scene, things=(dataclasses.replace(scene.things[0], x=0.5, y=0.5, angle=angle),))


def legibility(look: str, training: int, test: int, seed: int) -> dict[str, float]:
    """The percentage of right answers for each factor."""
    world, right = World(seed, {"train": training, "retrieval": test}, look=look), {}
    for turned, factors in ((False, FACTORS), (True, ("shape",))):
        scenes = {split: [still(seed, split, n, turned) for n in range(count)] for split, count in world.clips.items()}
        x = {
            split: np.stack([features(render_still(one, 0.5, False, real=world.part(split))) for one in found])
            for split, found in scenes.items()
        }
        for factor in factors:
            words = {
                split: np.array([one.ground if factor == "ground" else getattr(one.things[0], factor) for one in found])
                for split, found in scenes.items()
            }
            machine = make_pipeline(StandardScaler(), PCA(150, random_state=0), SVC(C=10.0))
            machine.fit(x["train"], words["train"])
            share = np.mean(machine.predict(x["retrieval"]) == words["retrieval"])
            right[factor + turned * " turned"] = round(100 * float(share), 1)
    return right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training", type=int, default=4000, help="pictures (default: %(default)s)")
    parser.add_argument("--test", type=int, default=1000, help="pictures (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    facts = {"world": WORLD_VERSION, "training": args.training, "test": args.test, "seed": args.seed}
    line = json.dumps(facts | {look: legibility(look, args.training, args.test, args.seed) for look in LOOKS})
    print(line)
    if args.out:
        args.out.write_text(line + "\n")


if __name__ == "__main__":
    main()
