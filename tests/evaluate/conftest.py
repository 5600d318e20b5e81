"""Videos of one colour each, and a model that sees colours."""

import numpy as np
import pytest

import harvest_jax
from data_pipeline.decode import pool
from harvest_jax.input.tokenizer import Tokenizer
from tests.helpers.colour_evaluation import COLOURS, ColourModel, DecoderInThisProcess
from tests.helpers.video_files import write_video


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, colours in {**{name: [name] for name in COLOURS}, "red_then_blue": ["red", "blue"]}.items():
        second = [np.full((8, 32, 48, 3), COLOURS[colour], np.uint8) for colour in colours]
        write_video(folder / f"{name}.mp4", np.concatenate(second), rate=8)
    (folder / "broken.mp4").write_bytes(b"\x00\x00\x00\x18ftypisom" + b"no video at all" * 20)
    return folder


@pytest.fixture
def model(monkeypatch):
    colour_model = ColourModel()
    monkeypatch.setattr(pool, "VideoDecoder", DecoderInThisProcess)
    monkeypatch.setitem(harvest_jax.__dict__, "load", lambda folder: colour_model)
    return colour_model


@pytest.fixture(scope="session")
def tokenizer():
    return Tokenizer()
