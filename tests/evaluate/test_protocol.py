"""The protocol of a result: what is in it, and what changes its hash."""

import shutil

import numpy as np
import pytest

from data_pipeline.decode.clip import decode_clip
from data_pipeline.decode.spec import DecodeSpec
from harvest_jax.errors import ConfigError
from harvest_jax.evaluate.protocol import RESIZES
from harvest_jax.pixels.square import prepare_clip
from tests.helpers import video_files
from tests.helpers.colour_evaluation import COLOURS, captioned, evaluate, manifest, write_shards


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_pictures_are_shown_as_in_the_models_training(videos, model, tmp_path, resize, stored, monkeypatch):
    """Blue margins left and right of a red square: a model trained on crops never sees them."""
    frame = np.full((32, 64, 3), COLOURS["blue"], np.uint8)
    frame[:, 16:48] = COLOURS["red"]
    frame[::3, 20:44:3] = 90  # something fine, by which to tell one scaler from another
    video_files.write_video(tmp_path / "margins.mp4", np.stack([frame] * 8))
    seen = []
    monkeypatch.setattr(model.config.preprocessing, "resize", resize)
    monkeypatch.setattr(
        model, "encode_video", lambda clips: seen.append(clips) or model.unit(clips.mean(axis=(1, 2, 3)))
    )
    if stored:
        words = write_shards(tmp_path / "shards", tmp_path, [("m", "margins", ("red",), {})])
    else:
        words = manifest(tmp_path, tmp_path, captioned("margins"))
    result = evaluate("retrieval", words, tmp_path)
    red, _, blue = np.concatenate(seen).mean(axis=(0, 1, 2, 3))
    assert (red > 190) == (resize == "crop")
    assert (blue > 100) == (resize == "squash")
    assert result["protocol"]["resize"] == RESIZES[resize]
    if not stored:
        whole = decode_clip(tmp_path / "margins.mp4", DecodeSpec(num_frames=4)).frames
        assert np.array_equal(seen[0][0], prepare_clip(whole, 4, 16, resize))


def test_fewer_frames_are_another_protocol_and_more_are_an_error(videos, model, tmp_path, capsys):
    words = manifest(videos, tmp_path, captioned(*COLOURS))
    plain = evaluate("retrieval", words, tmp_path)
    model.frames_expected = 1
    still = evaluate("retrieval", [*words, "--config.frames=1"], tmp_path)
    assert (plain["protocol"]["frames"], still["protocol"]["frames"]) == (4, 1)
    assert plain["protocol_hash"] != still["protocol_hash"]
    capsys.readouterr()
    evaluate("retrieval", [*words, "--config.frames=5"], tmp_path, code=ConfigError.exit_code)
    assert "frames=5, but this model takes 4" in capsys.readouterr().err


def test_the_protocol_names_no_folder(videos, model, tmp_path):
    words = manifest(videos, tmp_path, captioned(*COLOURS))
    here = evaluate("retrieval", words, tmp_path)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(videos, elsewhere)
    shutil.copy(tmp_path / "set.jsonl", elsewhere / "set.jsonl")
    there = evaluate("retrieval", [f"--config.data.manifest={elsewhere / 'set.jsonl'}"], tmp_path)
    assert here["protocol_hash"] == there["protocol_hash"]
    changed = evaluate("retrieval", manifest(videos, tmp_path, captioned("red", "green", "blue")), tmp_path)
    assert changed["protocol_hash"] != here["protocol_hash"]
