"""The video tower of a real B/16 against a plain PyTorch one: one frame, eight, and with patches dropped; gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra `parity` is not installed: make parity")

import torch
from flax import traverse_util

from harvest_jax.input.patches import patchify, take_patches
from harvest_jax.model.blocks import Block
from harvest_jax.model.config import harvest_config
from harvest_jax.model.harvest import Harvest
from harvest_jax.model.video_tower import VideoTower
from harvest_jax.train.losses import softmax_loss
from harvest_jax.weights.families.viclip import VICLIP
from harvest_jax.weights.files.tensors import Tensors, TensorSpec
from harvest_jax.weights.translate import to_native
from tests.parity import compare
from tests.parity.torch_video import VideoClip

pytestmark = pytest.mark.parity

REFERENCE = "a plain PyTorch one"
KEPT = 157  # of 1,568: what dropping 90 % leaves


def config_of(frames):
    config = harvest_config("B/16", num_frames=frames, decoder_layers=0)
    return dataclasses.replace(config, text=dataclasses.replace(config.text, context_length=32))


def params_of(model, config):
    """Our parameters of a PyTorch model, by ViCLIP's table."""
    arrays = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    entries = {name: TensorSpec(array.shape, array.dtype) for name, array in arrays.items()}
    ours = to_native(Tensors("in memory", "the reference", entries, arrays.__getitem__), VICLIP, config)
    return traverse_util.unflatten_dict({name: ours.read(name) for name in ours.entries}, sep="/")


@pytest.fixture(scope="module")
def towers():
    """By number of frames: (config, PyTorch model, our parameters)."""
    made = {}

    def towers_of(frames):
        if frames not in made:
            made.clear()  # one model of this size at a time
            config = config_of(frames)
            model = VideoClip(config, seed=frames)
            made[frames] = (config, model, params_of(model, config))
        return made[frames]

    return towers_of


def clips(count, frames, seed=0):
    """Pixels about as large as normalised ones: [B, T, H, W, 3]."""
    return np.random.default_rng(seed).normal(size=(count, frames, 224, 224, 3)).astype(np.float32)


def subset(count, frames, seed=1):
    """Which cells each clip keeps, in no order: int32 [B, KEPT]."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(frames * 196)[:KEPT] for _ in range(count)]).astype(np.int32)


def torch_clips(video):
    return torch.from_numpy(video.transpose(0, 1, 4, 2, 3).copy())


def our_inputs(video, kept):
    patches = patchify(video, 16)
    if kept is None:
        return patches, np.broadcast_to(np.arange(patches.shape[1], dtype=np.int32), patches.shape[:2])
    return take_patches(patches, kept), kept


def layer_outputs(config, params, patches, positions):
    """What each block of our tower gives: the tower of one block, then block after block."""
    video = config.video
    first = dict(params["video"]) | {"transformer": jax.tree.map(lambda leaf: leaf[:1], params["video"]["transformer"])}
    tower = VideoTower(dataclasses.replace(video, layers=1))
    x = jax.jit(tower.apply)({"params": first}, patches, positions)["tokens"]
    block = Block(video.heads, video.layers, jnp.float32, False, "xla", video.activation)
    step = jax.jit(lambda params, x: block.apply({"params": params}, x, None)[0])
    outputs = [np.asarray(x)]
    for layer in range(1, video.layers):
        x = step(jax.tree.map(lambda leaf, layer=layer: leaf[layer], params["video"]["transformer"]["blocks"]), x)
        outputs.append(np.asarray(x))
    return outputs


@pytest.mark.parametrize(
    ("frames", "count", "dropped"), [(1, 2, False), (8, 1, False), (8, 2, True)], ids=["T=1", "T=8", "T=8 dropped"]
)
def test_embeddings_and_every_block(towers, frames, count, dropped, measured):
    config, model, params = towers(frames)
    video = clips(count, frames)
    kept = subset(count, frames) if dropped else None
    with torch.no_grad():
        layers, embedding = model.vision_encoder(
            torch_clips(video), None if kept is None else torch.from_numpy(kept).long()
        )
    patches, positions = our_inputs(video, kept)
    tower = jax.jit(VideoTower(config.video).apply)
    ours = tower({"params": params["video"]}, patches, positions)
    outputs = layer_outputs(config, params, patches, positions)
    np.testing.assert_allclose(outputs[-1], ours["tokens"], atol=1e-4 * np.abs(outputs[-1]).max(), rtol=0)
    blocks = compare.block_differences(outputs, [layer.numpy() for layer in layers])
    assert len(blocks) == 12
    what = f"{frames} frames, {positions.shape[1]} patches"
    difference = compare.embedding_difference(np.asarray(ours["embedding"]), embedding.numpy())
    measured("B/16", f"{what}: embedding", REFERENCE, difference, compare.EMBEDDING_BOUND)
    measured("B/16", f"{what}: blocks, relative", REFERENCE, max(blocks), compare.BLOCK_BOUND)


def test_captions_of_32_tokens(towers, measured):
    config, model, params = towers(8)
    rng = np.random.default_rng(3)
    ids = rng.integers(1, 49406, (4, 32)).astype(np.int32)
    for row, end in enumerate((31, 5, 12, 1)):
        ids[row, end], ids[row, end + 1 :] = 49407, 0
    with torch.no_grad():
        _, theirs = model.text_encoder(torch.from_numpy(ids).long())
    ours = jax.jit(Harvest(config).encode_text)(params, ids)["embedding"]
    difference = compare.embedding_difference(np.asarray(ours), theirs.numpy())
    measured("B/16", "captions of 32 tokens: embedding", REFERENCE, difference, compare.EMBEDDING_BOUND)


def test_gradients_with_dropped_patches(towers, measured):
    """Of the contrastive loss of three clips and given caption embeddings."""
    config, model, params = towers(8)
    video, kept = clips(3, 8, seed=4), subset(3, 8, seed=5)
    text = np.random.default_rng(6).normal(size=(3, config.video.embed_dim)).astype(np.float32)
    model.zero_grad()
    _, embedding = model.vision_encoder(torch_clips(video), torch.from_numpy(kept).long())
    loss = model.loss(embedding, torch.from_numpy(text))
    loss.backward()
    patches, positions = our_inputs(video, kept)
    tower = VideoTower(config.video)

    def our_loss(params, patches, positions, text):
        found = tower.apply({"params": params["video"]}, patches, positions)["embedding"]
        return softmax_loss(found, text, params["logit_scale"])[0]

    own = {"video": params["video"], "logit_scale": params["logit_scale"]}
    ours, gradient = jax.jit(jax.value_and_grad(our_loss))(own, patches, positions, text)
    encoder, mine = model.vision_encoder, gradient["video"]
    middle = config.video.layers // 2
    block, theirs = mine["transformer"]["blocks"], encoder.transformer.resblocks[middle]
    pairs = {
        "patch embedding": (mine["patch_embedding"]["kernel"], encoder.conv1.weight.grad[:, :, 0].permute(2, 3, 1, 0)),
        "temporal table": (mine["temporal_embedding"], encoder.temporal_positional_embedding.grad[0]),
        "spatial table": (mine["spatial_embedding"], encoder.positional_embedding.grad),
        "class token": (mine["class_embedding"], encoder.class_embedding.grad),
        "middle qkv": (block["attn"]["qkv"]["kernel"][middle], theirs.attn.in_proj_weight.grad.T),
        "middle out": (block["attn"]["out"]["kernel"][middle], theirs.attn.out_proj.weight.grad.T),
        "middle c_fc": (block["mlp"]["c_fc"]["kernel"][middle], theirs.mlp.c_fc.weight.grad.T),
        "middle norm": (block["ln_1"]["scale"][middle], theirs.ln_1.weight.grad),
        "projection": (mine["proj"]["kernel"], encoder.proj.grad),
        # d loss / d log(1 / temp) is -temp d loss / d temp
        "temperature": (gradient["logit_scale"], -model.temp.detach() * model.temp.grad),
        "loss": (ours, loss.detach()),
    }
    for name, (a, b) in pairs.items():
        difference = compare.relative(np.asarray(a).reshape(b.shape), b.numpy())
        measured("B/16", f"8 frames, {KEPT} patches: gradient of {name}", REFERENCE, difference, compare.GRADIENT_BOUND)
