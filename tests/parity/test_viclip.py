"""ViCLIP files as PyTorch writes them: every wrapper comes in, and what goes out loads with `strict=True`."""

import jax
import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra `parity` is not installed: make parity")

import torch
from flax import traverse_util
from safetensors.torch import load_file

import harvest_jax
from harvest_jax.model.config import HarvestConfig, TextConfig, VideoConfig
from harvest_jax.model.harvest import Harvest
from harvest_jax.weights.export_model import export_model
from harvest_jax.weights.families.viclip import PREPROCESSING
from harvest_jax.weights.folder import load_model, save_model
from harvest_jax.weights.import_checkpoint import import_checkpoint
from tests.parity.torch_video import VideoClip

pytestmark = pytest.mark.parity

SMALL = HarvestConfig(
    name="ViT-128x3/8@32",
    video=VideoConfig(image_size=32, patch_size=8, num_frames=8, width=128, layers=3, heads=2, embed_dim=48),
    text=TextConfig(vocab_size=49408, context_length=32, width=64, layers=2, heads=1, embed_dim=48),
    decoder=None,
    preprocessing=PREPROCESSING,
)
CAPTIONS = ["a dog jumps over a log", "two people dance", "!"]


@pytest.fixture(scope="module")
def model():
    return VideoClip(SMALL, seed=0)


def write(state, path, form):
    """A file as one of the trainers leaves it."""
    if form == "plain":
        torch.save(state, path)
    elif form == "InternVideo":
        torch.save({"model": state, "optimizer": {"state": {}}, "epoch": 9, "global_step": 4000}, path)
    elif form == "DistributedDataParallel":
        torch.save({"model": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 9}, path)
    else:  # deepspeed
        torch.save({"module": state, "dp_world_size": 8, "global_steps": 4000, "skipped_steps": 0}, path)


@pytest.mark.parametrize("form", ["plain", "InternVideo", "DistributedDataParallel", "deepspeed"])
def test_every_wrapper_gives_the_same_model(model, tmp_path, form):
    path = tmp_path / "ViCLIP.pth"
    write(model.state_dict(), path, form)
    assert import_checkpoint(path, tmp_path / "imported")["family"] == "ViCLIP"
    config, params = load_model(tmp_path / "imported")
    assert config == SMALL
    ours = traverse_util.flatten_dict(params, sep="/")
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    frames = state["vision_encoder.temporal_positional_embedding"]
    np.testing.assert_array_equal(ours["video/temporal_embedding"], frames[0])
    last = state["vision_encoder.transformer.resblocks.2.mlp.c_proj.weight"]
    np.testing.assert_array_equal(ours["video/transformer/blocks/mlp/c_proj/kernel"][2], last.T)
    assert sum(array.size for array in ours.values()) == sum(array.size for array in state.values())


def unit(x):
    x = np.asarray(x)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_an_imported_model_gives_the_same_numbers(model, tmp_path):
    """From pictures and words to logits, through `harvest_jax.load`."""
    write(model.state_dict(), tmp_path / "ViCLIP.pth", "InternVideo")
    import_checkpoint(tmp_path / "ViCLIP.pth", tmp_path / "imported")
    ours = harvest_jax.load(tmp_path / "imported")
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 32, 32, 3), np.uint8)
    video, text = ours.encode_clips(frames), ours.encode_text(CAPTIONS)
    mean, std = np.asarray(PREPROCESSING.mean), np.asarray(PREPROCESSING.std)
    pixels = torch.from_numpy(((frames / 255 - mean) / std).transpose(0, 1, 4, 2, 3)).float()
    ids = torch.from_numpy(np.asarray(ours.tokenizer(CAPTIONS, 32))).long()
    with torch.no_grad():
        their_video, their_text = model.vision_encoder(pixels)[1], model.text_encoder(ids)[1]
        logits = model.logits(their_video, their_text).numpy()
    assert np.abs(video - unit(their_video)).max() <= 1e-5
    assert np.abs(text - unit(their_text)).max() <= 1e-5
    np.testing.assert_allclose(ours.logit_scale * video @ text.T, logits, atol=1e-5 * ours.logit_scale)


def test_an_export_loads_with_strict_and_gives_our_numbers(tmp_path):
    shapes = jax.eval_shape(Harvest(SMALL).init, jax.random.key(0))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), shapes)
    params["logit_scale"] = np.asarray(3.3, np.float32)
    save_model(tmp_path / "ours", SMALL, params, {})
    export_model(tmp_path / "ours", "viclip", tmp_path / "viclip.safetensors")
    theirs = VideoClip(SMALL, seed=5)
    theirs.load_state_dict(load_file(tmp_path / "viclip.safetensors"), strict=True)
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 32, 32, 3), np.uint8)
    ours = harvest_jax.load(tmp_path / "ours")
    mean, std = np.asarray(PREPROCESSING.mean), np.asarray(PREPROCESSING.std)
    pixels = torch.from_numpy(((frames / 255 - mean) / std).transpose(0, 1, 4, 2, 3)).float()
    ids = torch.from_numpy(np.asarray(ours.tokenizer(CAPTIONS, 32))).long()
    with torch.no_grad():
        their_video, their_text = theirs.vision_encoder(pixels)[1], theirs.text_encoder(ids)[1]
    assert np.abs(ours.encode_clips(frames) - unit(their_video)).max() <= 1e-5
    assert np.abs(ours.encode_text(CAPTIONS) - unit(their_text)).max() <= 1e-5
    assert 1 / theirs.temp.item() == pytest.approx(ours.logit_scale, rel=1e-6)
