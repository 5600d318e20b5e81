import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np

from harvest_jax.demo import clips, world
from harvest_jax.encode import write_video

ROOT = Path(__file__).resolve().parents[2]
DIGESTS = """
import hashlib, pathlib
from harvest_jax.demo import clips, world
from harvest_jax.encode import write_video
for scene in clips.scenes(0)["choice"][:48]:
    write_video(pathlib.Path("clip.mp4"), world.render_clip(scene))
    print(hashlib.sha256(pathlib.Path("clip.mp4").read_bytes()).hexdigest())
"""


def test_scenes_of_the_splits():
    splits = clips.scenes(0)
    assert len({scene.caption for scene in splits["retrieval"]}) == len(splits["retrieval"]) == 40
    assert len(splits["choice"]) == 200
    assert {scene.twin for scene in splits["choice"]} == set(splits["choice"])
    assert not {s.caption for s in splits["train"]} & {s.caption for s in splits["choice"]}


def test_videos_are_real_h264(tmp_path):
    frames = world.render_clip(world.random_scene(np.random.default_rng(0), "blue", "bar", "grows"))
    write_video(tmp_path / "clip.mp4", frames)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert decoded.shape == frames.shape
    assert np.abs(decoded.astype(int) - frames.astype(int)).mean() < 6


def test_the_same_frames_are_the_same_bytes_whatever_was_in_memory(tmp_path):
    """In two processes, whose new memory holds other bytes (glibc's MALLOC_PERTURB_; elsewhere it has no effect)."""
    processes = []
    for fill in ("1", "170"):
        folder = tmp_path / fill
        folder.mkdir()
        environment = os.environ | {"PYTHONPATH": str(ROOT), "MALLOC_PERTURB_": fill}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", DIGESTS], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
            )
        )
    one, other = (process.communicate()[0].split() for process in processes)
    assert len(set(one)) == 48
    assert one == other
