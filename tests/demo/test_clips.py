import av
import numpy as np

from harvest_jax.demo import clips, world


def test_scenes_of_the_splits():
    splits = clips.scenes(0)
    assert len({scene.caption for scene in splits["retrieval"]}) == len(splits["retrieval"]) == 40
    assert len(splits["choice"]) == 200
    assert {scene.twin for scene in splits["choice"]} == set(splits["choice"])
    assert not {s.caption for s in splits["train"]} & {s.caption for s in splits["choice"]}


def test_videos_are_real_h264(tmp_path):
    frames = world.render_clip(world.random_scene(np.random.default_rng(0), "blue", "bar", "grows"))
    clips.write_video(tmp_path / "clip.mp4", frames)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert decoded.shape == frames.shape
    assert np.abs(decoded.astype(int) - frames.astype(int)).mean() < 6
