"""What our towers compute, layer by layer too, from the parameters of a model folder."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harvest_jax.input.patches import patchify
from harvest_jax.model.blocks import Block
from harvest_jax.model.config import HarvestConfig, TextConfig, VideoConfig
from harvest_jax.model.harvest import Harvest, Params, l2_normalise, normalise
from harvest_jax.model.video_tower import VideoTower
from harvest_jax.train.losses import softmax_loss


@dataclasses.dataclass(frozen=True)
class Batch:
    """What every implementation gets."""

    pictures: np.ndarray  # uint8 [B, S, S, 3]
    ids: np.ndarray  # int32 [C, 77]

    def patches(self, patch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [B, N, P] and int32 [B, N]: all cells in order."""
        patches = patchify(self.pictures[:, None], patch_size)
        return patches, np.broadcast_to(np.arange(patches.shape[1], dtype=np.int32), patches.shape[:2]).copy()


def embeddings(config: HarvestConfig, params: Params, batch: Batch, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Pictures [B, D] and captions [C, D], not normalised, as the package computes them, in `dtype`."""
    harvest = Harvest(config, dtype=dtype)
    image = jax.jit(lambda p, x, where: harvest.encode_video(p, x, where)["embedding"])
    text = jax.jit(lambda p, ids: harvest.encode_text(p, ids)["embedding"])
    # only what a tower needs goes in, so that only that is copied
    seen = image({"video": params["video"]}, *batch.patches(config.video.patch_size))
    read = text({"text": params["text"]}, batch.ids)
    return np.asarray(seen), np.asarray(read)


def logits(params: Params, image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """CLIP's: cosines times the scale; [B, C]."""
    cosines = jnp.matmul(
        l2_normalise(jnp.asarray(image)), l2_normalise(jnp.asarray(text)).T, precision=jax.lax.Precision.HIGHEST
    )
    return np.asarray(jnp.exp(params["logit_scale"]) * cosines)


def image_layers(config: HarvestConfig, params: Params, batch: Batch) -> list[np.ndarray]:
    """What the first block gets, then what each block gives: [B, 1 + N, W] each."""
    patches, positions = batch.patches(config.video.patch_size)

    def first(video: Params, patches: jax.Array, positions: jax.Array) -> jax.Array:
        tower = VideoTower(dataclasses.replace(config.video, layers=1))
        pixels = normalise(patches, config.preprocessing)
        _, kept = tower.apply(
            {"params": video}, pixels, positions, capture_intermediates=lambda module, _: module.name == "ln_pre"
        )
        return kept["intermediates"]["ln_pre"]["__call__"][0]

    one_block = jax.tree.map(lambda leaf: leaf[:1], params["video"]["transformer"])
    x = jax.jit(first)(params["video"] | {"transformer": one_block}, patches, positions)
    return _through_blocks(config.video, params["video"], x, causal=False)


def text_layers(config: HarvestConfig, params: Params, batch: Batch) -> list[np.ndarray]:
    """What the first block gets, then what each block gives: [C, L, W] each."""
    text = params["text"]
    x = np.asarray(text["token_embedding"]["embedding"])[batch.ids] + np.asarray(text["positional_embedding"])
    return _through_blocks(config.text, text, jnp.asarray(x), causal=True)


def _through_blocks(tower: VideoConfig | TextConfig, params: Params, x: jax.Array, causal: bool) -> list[np.ndarray]:
    """The scanned blocks, one at a time: the module that the tower scans, with one layer's slice of its parameters."""
    block = Block(tower.heads, tower.layers, jnp.float32, causal, "xla", tower.activation)
    step = jax.jit(lambda p, x: block.apply({"params": p}, x, None)[0])
    layers = [np.asarray(x)]
    for layer in range(tower.layers):
        x = step(jax.tree.map(lambda leaf, layer=layer: leaf[layer], params["transformer"]["blocks"]), x)
        layers.append(np.asarray(x))
    return layers


def gradients(config: HarvestConfig, params: Params, batch: Batch) -> dict[str, np.ndarray]:
    """Of the package's contrastive loss, and the loss: patch embedding, a middle block's qkv, projections, scale."""
    harvest = Harvest(config)
    middle = {"video": config.video.layers // 2, "text": config.text.layers // 2}
    blocks = {tower: params[tower]["transformer"]["blocks"]["attn"]["qkv"]["kernel"] for tower in middle}
    chosen = {
        "video/patch_embedding": params["video"]["patch_embedding"]["kernel"],
        "video/proj": params["video"]["proj"]["kernel"],
        "text/text_projection": params["text"]["text_projection"]["kernel"],
        "logit_scale": params["logit_scale"],
    } | {f"{tower}/qkv": blocks[tower][layer] for tower, layer in middle.items()}

    def loss(chosen: dict[str, jax.Array], params: Params, patches: jax.Array, positions: jax.Array, ids: jax.Array):
        video = _replaced(params["video"], ("patch_embedding", "kernel"), chosen["video/patch_embedding"])
        video = _replaced(video, ("proj", "kernel"), chosen["video/proj"])
        text = _replaced(params["text"], ("text_projection", "kernel"), chosen["text/text_projection"])
        towers = {"video": video, "text": text}
        for tower, layer in middle.items():
            path = ("transformer", "blocks", "attn", "qkv", "kernel")
            kernel = (
                params[tower]["transformer"]["blocks"]["attn"]["qkv"]["kernel"].at[layer].set(chosen[f"{tower}/qkv"])
            )
            towers[tower] = _replaced(towers[tower], path, kernel)
        seen = harvest.encode_video(towers, patches, positions)["embedding"]
        read = harvest.encode_text(towers, ids)["embedding"]
        return softmax_loss(seen, read, chosen["logit_scale"])[0]

    patches, positions = batch.patches(config.video.patch_size)
    value, found = jax.jit(jax.value_and_grad(loss))(chosen, params, patches, positions, batch.ids[: len(patches)])
    return {name: np.asarray(gradient) for name, gradient in found.items()} | {"loss": np.asarray(value)}


def _replaced(tree: Params, path: tuple[str, ...], leaf: Any) -> Params:
    """The same nested dict with another leaf at one place."""
    if not path:
        return leaf
    return tree | {path[0]: _replaced(tree[path[0]], path[1:], leaf)}
