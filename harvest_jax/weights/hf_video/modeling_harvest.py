# Copyright 2026 The harvest_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The towers of a harvest_jax model in PyTorch, for `AutoModel.from_pretrained(FOLDER, trust_remote_code=True)`.

CLIP's two transformers; the video tower sees the patches of all frames at once, with a table of frames added to CLIP's
table of places (arXiv 2310.19554). Needs torch and transformers alone.
"""

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput


class HarvestVideoConfig(PreTrainedConfig):
    """Sizes of the towers, under the names of harvest_jax, and how pictures are prepared (for programs that ask)."""

    model_type = "harvest_video"

    def __init__(
        self,
        video_tower: dict[str, Any] | None = None,
        text_tower: dict[str, Any] | None = None,
        preprocessing: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.video_tower, self.text_tower = video_tower or {}, text_tower or {}
        self.preprocessing = preprocessing or {}


@dataclasses.dataclass
class HarvestVideoOutput(ModelOutput):
    """Embeddings [B, D] and [C, D] of unit length; their cosines times the learned scale; the loss if asked for."""

    loss: torch.Tensor | None = None
    logits_per_video: torch.Tensor | None = None  # [B, C]
    logits_per_text: torch.Tensor | None = None  # [C, B]
    text_embeds: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values come from one product."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, causal: bool) -> torch.Tensor:
        batch, tokens, width = x.shape
        split = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)  # [B, heads, tokens, width / heads] each
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))


class Mlp(nn.Module):
    """Two linear layers; the hidden width is four times the width, unless the tower says another."""

    def __init__(self, tower: dict[str, Any]) -> None:
        super().__init__()
        self.activation, width = tower["activation"], tower["width"]
        hidden = tower.get("mlp_width") or 4 * width
        self.wide = nn.Linear(width, hidden)
        self.back = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.wide(x)
        if self.activation == "quick_gelu":
            return self.back(x * torch.sigmoid(1.702 * x))
        return self.back(functional.gelu(x, approximate="tanh" if self.activation == "gelu_tanh" else "none"))


class Block(nn.Module):
    """CLIP's block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, tower: dict[str, Any]) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(tower["width"])
        self.attention = Attention(tower["width"], tower["heads"])
        self.norm_2 = nn.LayerNorm(tower["width"])
        self.mlp = Mlp(tower)

    def forward(self, x: torch.Tensor, causal: bool) -> torch.Tensor:
        x = x + self.attention(self.norm_1(x), causal)
        return x + self.mlp(self.norm_2(x))


class VideoTower(nn.Module):
    """Normalised RGB [B, T, 3, S, S] -> embeddings [B, D], not normalised."""

    def __init__(self, tower: dict[str, Any]) -> None:
        super().__init__()
        self.patch_size, width = tower["patch_size"], tower["width"]
        cells = (tower["image_size"] // self.patch_size) ** 2
        self.patch_embedding = nn.Linear(3 * self.patch_size**2, width, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.spatial_embedding = nn.Parameter(torch.zeros(1 + cells, width))  # row 0: the class token's
        self.temporal_embedding = nn.Parameter(torch.zeros(tower["num_frames"], width))
        self.norm_pre = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(tower) for _ in range(tower["layers"]))
        self.norm_post = nn.LayerNorm(width)
        self.projection = nn.Linear(width, tower["embed_dim"], bias=False)

    def forward(self, pixels: torch.Tensor, cells: torch.Tensor | None = None) -> torch.Tensor:
        batch, frames, _, side, _ = pixels.shape
        patch, rows = self.patch_size, side // self.patch_size
        grid = pixels.reshape(batch * frames, 3, rows, patch, rows, patch)
        patches = grid.permute(0, 2, 4, 3, 5, 1).reshape(batch, frames * rows * rows, 3 * patch * patch)
        places = (self.temporal_embedding[:, None] + self.spatial_embedding[None, 1:]).flatten(0, 1)
        if cells is not None:  # before the embedding, so that dropped patches cost nothing
            patches, places = patches[:, cells], places[cells]
        x = self.patch_embedding(patches) + places
        first = (self.class_embedding + self.spatial_embedding[0]).expand(batch, 1, -1)
        x = self.norm_pre(torch.cat([first, x], dim=1))
        for block in self.blocks:
            x = block(x, causal=False)
        return self.projection(self.norm_post(x[:, 0]))


class TextTower(nn.Module):
    """Token ids [B, L] -> embeddings [B, D] of the first end token, not normalised.

    The end token has the largest id. The tower is causal: what follows the end token, such as padding, changes nothing.
    """

    def __init__(self, tower: dict[str, Any]) -> None:
        super().__init__()
        width = tower["width"]
        self.token_embedding = nn.Embedding(tower["vocab_size"], width)
        self.positional_embedding = nn.Parameter(torch.zeros(tower["context_length"], width))
        self.blocks = nn.ModuleList(Block(tower) for _ in range(tower["layers"]))
        self.norm_final = nn.LayerNorm(width)
        self.projection = nn.Linear(width, tower["embed_dim"], bias=False)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.token_embedding(input_ids) + self.positional_embedding[: input_ids.shape[1]]
        for block in self.blocks:
            x = block(x, causal=True)
        end = input_ids.argmax(dim=1)[:, None, None].expand(-1, 1, x.shape[-1])
        return self.projection(self.norm_final(x.gather(1, end)[:, 0]))


class HarvestVideoModel(PreTrainedModel):
    """Both towers and the learned scale. Embeddings are float32 of unit length, as harvest_jax gives them."""

    config_class = HarvestVideoConfig
    base_model_prefix = ""
    main_input_name = "pixel_values_videos"
    _no_split_modules = ["Block"]  # noqa: RUF012 (read by transformers as it is)
    _supports_sdpa = True

    def __init__(self, config: HarvestVideoConfig) -> None:
        super().__init__(config)
        self.video = VideoTower(config.video_tower)
        self.text = TextTower(config.text_tower)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.post_init()

    def get_video_features(self, pixel_values_videos: torch.Tensor, cells: torch.Tensor | None = None) -> torch.Tensor:
        """Embed clips; a model of one frame embeds each frame and averages the embeddings.

        Args:
          pixel_values_videos: [B, T, 3, S, S], normalised by the processor; T is the model's number of frames, or any
            number for a model of one frame.
          cells: patches that are looked at, from `kept_cells`; None is all.

        Returns:
          float32 [B, D] of unit length.
        """
        frames, pixels = self.config.video_tower["num_frames"], pixel_values_videos.to(self.dtype)
        if frames == 1:
            single = unit(self.video(pixels.flatten(0, 1)[:, None], cells))
            return unit(single.unflatten(0, (-1, pixels.shape[1])).mean(dim=1))
        if pixels.shape[1] != frames:
            raise ValueError(f"the model takes {frames} frames of a clip, not {pixels.shape[1]}")
        return unit(self.video(pixels, cells))

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Embed texts.

        Args:
          input_ids: int [B, L] with start and end token, L at most the model's context length.
          attention_mask: not needed (see `TextTower`); taken so that a tokenizer's output can be passed as it is.

        Returns:
          float32 [B, D] of unit length.
        """
        return unit(self.text(input_ids))

    def kept_cells(self, keep_ratio: float, seed: int = 0) -> torch.Tensor:
        """The cells of a clip that `Model.keeping(keep_ratio, seed)` of harvest_jax looks at: int64, ascending."""
        tower = self.config.video_tower
        total = tower["num_frames"] * (tower["image_size"] // tower["patch_size"]) ** 2
        kept = max(1, total - int((1.0 - keep_ratio) * total + 1e-9))
        noise = np.random.default_rng(seed).random(total, dtype=np.float32)
        return torch.from_numpy(np.sort(np.argsort(noise)[:kept])).to(self.device)

    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values_videos: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        return_loss: bool = False,
        **kwargs: Any,
    ) -> HarvestVideoOutput:
        """Embeddings and logits of every pair; with `return_loss` the contrastive loss of row i with row i, in nats."""
        videos = self.get_video_features(pixel_values_videos)
        texts = self.get_text_features(input_ids, attention_mask)
        logits = self.logit_scale.float().exp() * videos @ texts.T
        loss = None
        if return_loss:
            own = torch.arange(len(logits), device=logits.device)
            loss = (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
        return HarvestVideoOutput(loss, logits, logits.T, texts, videos)

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: every number comes from the folder."""


def unit(x: torch.Tensor) -> torch.Tensor:
    """L2-normalised along the last axis, in float32."""
    x = x.float()
    return x / x.norm(dim=-1, keepdim=True)
