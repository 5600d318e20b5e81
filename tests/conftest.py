"""Set before jax is imported anywhere: the CPU as eight devices, so that every mesh of the tests exists."""

import csv
import os
import signal
from pathlib import Path

import hypothesis
import pytest

_DEVICES = "--xla_force_host_platform_device_count=8"

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # JAX_PLATFORMS=cuda make test runs them on a GPU
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}".strip()
os.environ.setdefault("MPLBACKEND", "agg")
# In the background of a script (`make test &`) Ctrl-C is ignored, under nohup SIGHUP, and the programs that tests start
# would inherit that.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)
# The tests compile far more than they compute: quick, plain code takes 40 % off the time of the suite.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# A property must not fail because the machine is busy.
hypothesis.settings.register_profile("no_deadline", deadline=None)
hypothesis.settings.load_profile("no_deadline")


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """Commands that tests start keep their compiled programs here, and not in the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def world_clips(tmp_path_factory):
    """Manifest of 24 training and 10 test clips of the demo's world, real H.264 files."""
    import numpy as np

    from harvest_jax.demo.world import MOTIONS, combinations, random_scene, render_clip
    from harvest_jax.encode import write_video

    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    rows = []
    for split, number, held in (("train", 24, False), ("test", 10, True)):
        for index, combination in enumerate(combinations(held)[:: len(combinations(held)) // number][:number]):
            scene = random_scene(rng, *combination)
            video = f"{split}{index:02d}.mp4"
            write_video(folder / video, render_clip(scene))
            motions = [scene.caption, scene.twin.caption]
            rows.append(
                {
                    "id": f"{split}{index:02d}",
                    "video": video,
                    "caption": scene.caption,
                    "split": split,
                    "label": MOTIONS[MOTIONS.index(scene.motion)],
                    "question": f"what color is the {scene.shape}?",
                    "option_0": motions[index % 2],
                    "option_1": motions[1 - index % 2],
                    "answer": str(index % 2),
                }
            )
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "manifest.csv"


@pytest.fixture(scope="session")
def world_shards(world_clips, tmp_path_factory):
    """The same clips as shards, by the command."""
    from harvest_jax.cli import main

    out = tmp_path_factory.mktemp("shards") / "world"
    command = ["shards", "--manifest", str(world_clips), "--out", str(out), "--short_side", "64", "--workers", "2"]
    assert main(command) == 0
    return Path(out)
