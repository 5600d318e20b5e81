"""The fields that every evaluation has. The configs of the tasks import this one and add their own."""

import importlib

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The fields without a task."""
    config = ConfigDict()
    config.task = ""  # each config sets its own
    config.seed = 0  # written into the result; nothing but the patches of `keep_ratio` is random

    config.data = data = ConfigDict()
    data.manifest = ""  # table of videos, which are decoded during the evaluation
    data.shards = ""  # folder written by `harvest shards`; with a manifest too: its rows, and the shards' frames, by id
    data.root = ""  # folder that the manifest's paths start from; empty: the manifest's own folder
    data.split = "test"  # of the shards, and of a manifest with a column `split`; empty: all rows of the manifest
    data.benchmark = ""  # name of a benchmark; its own config sets it (harvest eval --list shows all)
    data.annotations = ""  # of a benchmark: its annotation file, or a folder that holds its files
    data.videos = ""  # of a benchmark: the folder of its videos, in any subfolders
    data.partial = False  # accept annotations with fewer rows than the benchmark has: a result of its own
    data.workers = 0  # processes that decode videos; 0: one for each CPU core

    # Frames that are taken of a clip. A video model that takes more is shown each several times. 0: as many as the
    # model takes (an image model takes any number: 8).
    config.frames = 0
    config.sampling = "segment_middle"  # which frames: or "linspace_inclusive", or "fps" (docs/evaluation.md, Frames)
    config.sampling_fps = 1.0  # with "fps": frames a second, `frames` at most
    config.views = 1  # times that frames are taken of a clip, each time shifted; the embeddings are averaged
    config.crops = 1  # squares of each frame: 1 is the centre, 3 are along the longer side; averaged, too
    config.resize = ""  # "crop" or "squash" instead of the model's own way of making pictures square
    config.keep_ratio = 1.0  # share of the patches of a clip that is looked at, the same patches in every clip
    config.batch_size = 16  # clips, texts or questions in one call of the model (from 16 up: on each device)
    # True: the command fails, after the result was written, where a video is missing, or where the model gives so many
    # equal scores that their order would move a figure by over 0.1 points.
    config.strict = False
    return config


def benchmark(name: str) -> ConfigDict:
    """The config of a benchmark: that of its task, with the benchmark's own settings."""
    from harvest_jax.evaluate.benchmarks.named import find_benchmark

    found = find_benchmark(name)
    config = importlib.import_module(f"configs.eval.{found.task}").get_config()
    config.data.benchmark = name
    config.update(dict(found.settings))
    return config
