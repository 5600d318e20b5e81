"""The clips of an evaluation, read from real video files by real worker processes."""

import numpy as np

from data_pipeline.decode import pool
from harvest_jax.evaluate.clips import open_set
from harvest_jax.evaluate.settings import DataSettings
from tests.helpers import sabotaged_worker
from tests.helpers.video_files import numbered_frames, read_number, write_video


def test_spans_of_one_video_are_decoded_by_all_workers(tmp_path, monkeypatch):
    """Each of the first two spans waits until the other is being decoded: one alone would time out."""
    monkeypatch.setattr(pool, "WORKER_COMMAND", sabotaged_worker.WORKER_COMMAND)
    write_video(tmp_path / "meeting.mp4", numbered_frames(50, 48, 48))
    rows = ["a,0,1,first", "b,3,4,second", "c,90,99,after its end", "d,,,all of it", "e,0,1,first again"]
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("video,id,start,end,caption\n" + "".join(f"meeting.mp4,{row}\n" for row in rows))
    evaluation = open_set(DataSettings(str(manifest), "", "", "", 2))
    clips = dict(evaluation.frames(num_frames=2, image_size=48, resize="crop"))
    assert [sample.clip for sample in evaluation.samples] == [0, 1, 2, 3, 0]
    assert str(clips.pop(2)).startswith("bad span: it starts at 90 s")
    numbers = {clip: [read_number(frame) for frame in frames] for clip, frames in clips.items()}
    assert numbers == {0: [2, 7], 1: [32, 37], 3: [12, 37]}
    assert all(frames.dtype == np.uint8 for frames in clips.values())
