"""A plain PyTorch video CLIP to compare ours with: slow, unfused, one statement per step of the description.

Written from the description of joint space-time CLIP (each frame cut into patches and embedded, CLIP's spatial table,
a temporal table, one class token, ln_pre, CLIP's blocks over all tokens, ln_post, projection of the class token) and
of CLIP's causal text tower (arXiv 2103.00020). Parameters carry ViCLIP's names, so that its `state_dict` is in the
format of a published file; attention, blocks and gathering are written out, not taken from torch.nn.
"""

import math
from typing import Any

import torch
from torch import nn


class Attention(nn.Module):
    """Multi-head self-attention with the three products of a head written out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))  # rows: query, key, value
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, causal: bool) -> torch.Tensor:
        tokens, width = x.shape[1:]
        projected = x @ self.in_proj_weight.T + self.in_proj_bias
        query, key, value = projected.split(width, dim=-1)
        mixed = []
        for head in range(self.heads):
            part = slice(head * width // self.heads, (head + 1) * width // self.heads)
            scores = query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(width // self.heads)  # b query key
            if causal:
                later = torch.arange(tokens)[None, :] > torch.arange(tokens)[:, None]
                scores = scores.masked_fill(later, -math.inf)
            mixed.append(torch.softmax(scores, dim=-1) @ value[..., part])
        return self.out_proj(torch.cat(mixed, dim=-1))


class Mlp(nn.Module):
    """Linear, activation, linear."""

    def __init__(self, width: int, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.c_fc(x)
        exact = self.activation == "gelu"
        return self.c_proj(x * (1 + torch.erf(x / math.sqrt(2))) / 2 if exact else x / (1 + torch.exp(-1.702 * x)))


class Block(nn.Module):
    """CLIP's pre-norm block."""

    def __init__(self, width: int, heads: int, activation: str) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-5)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width, eps=1e-5)
        self.mlp = Mlp(width, activation)

    def forward(self, x: torch.Tensor, causal: bool) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x), causal)
        return x + self.mlp(self.ln_2(x))


class Blocks(nn.Module):
    """A stack of blocks; gives the output of each."""

    def __init__(self, width: int, layers: int, heads: int, activation: str) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList([Block(width, heads, activation) for _ in range(layers)])

    def forward(self, x: torch.Tensor, causal: bool) -> list[torch.Tensor]:
        outputs = []
        for block in self.resblocks:
            x = block(x, causal)
            outputs.append(x)
        return outputs


class VisionEncoder(nn.Module):
    """Video [B, T, 3, H, W], normalised -> (output of each block [B, 1 + K, W], embedding [B, D])."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        side, width = config.patch_size, config.width
        self.conv1 = nn.Conv3d(3, width, (1, side, side), stride=(1, side, side), bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(1 + (config.image_size // side) ** 2, width))
        self.temporal_positional_embedding = nn.Parameter(torch.empty(1, config.num_frames, width))
        self.ln_pre = nn.LayerNorm(width, eps=1e-5)
        self.transformer = Blocks(width, config.layers, config.heads, config.activation)
        self.ln_post = nn.LayerNorm(width, eps=1e-5)
        self.proj = nn.Parameter(torch.empty(width, config.embed_dim))

    def forward(self, video: torch.Tensor, kept: torch.Tensor | None = None) -> tuple[list[torch.Tensor], torch.Tensor]:
        clips = []
        for number, clip in enumerate(video):
            tokens = []
            for time, frame in enumerate(clip):
                grid = self.conv1(frame[None, :, None])[0, :, 0]  # width rows columns
                cells = grid.flatten(1).T + self.positional_embedding[1:]  # row by row
                tokens.append(cells + self.temporal_positional_embedding[0, time])
            sequence = torch.cat(tokens)  # frame by frame
            if kept is not None:
                sequence = torch.stack([sequence[cell] for cell in kept[number].tolist()])
            first = self.class_embedding + self.positional_embedding[0]
            clips.append(torch.cat([first[None], sequence]))
        outputs = self.transformer(self.ln_pre(torch.stack(clips)), causal=False)
        return outputs, self.ln_post(outputs[-1][:, 0]) @ self.proj


class TextEncoder(nn.Module):
    """Ids [B, L] -> (output of each block [B, L, W], embedding [B, D])."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, config.width))
        self.transformer = Blocks(config.width, config.layers, config.heads, config.activation)
        self.ln_final = nn.LayerNorm(config.width, eps=1e-5)
        self.text_projection = nn.Parameter(torch.empty(config.width, config.embed_dim))

    def forward(self, ids: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        outputs = self.transformer(self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]], causal=True)
        end = ids.argmax(dim=1)  # the end token has the largest id
        final = torch.stack([self.ln_final(row[place]) for row, place in zip(outputs[-1], end.tolist(), strict=True)])
        return outputs, final @ self.text_projection


class VideoClip(nn.Module):
    """Both towers and the temperature, every parameter random: no bias, table or scale is left at zero or one."""

    def __init__(self, config: Any, seed: int) -> None:
        super().__init__()
        self.vision_encoder = VisionEncoder(config.video)
        self.text_encoder = TextEncoder(config.text)
        self.temp = nn.Parameter(torch.tensor(0.04))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name == "temp":
                    continue
                noise = torch.randn(parameter.shape, generator=generator)
                if parameter.ndim == 1 or "embedding" in name:  # biases, norms, tables
                    parameter.copy_(0.1 * noise + (1.0 if ".ln_" in name and name.endswith("weight") else 0.0))
                elif name.endswith(("vision_encoder.proj", "text_projection")):  # stored as [in, out]
                    parameter.copy_(noise * parameter.shape[0] ** -0.5)
                else:  # [out, in, ...]
                    parameter.copy_(noise * parameter[0].numel() ** -0.5)

    def logits(self, video: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Cosines of embeddings [B, D] and [C, D] over the temperature: [B, C]."""
        video = video / video.norm(dim=1, keepdim=True)
        text = text / text.norm(dim=1, keepdim=True)
        return video @ text.T / self.temp

    def loss(self, video: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Symmetric InfoNCE of embeddings [B, D] whose rows belong together, in nats."""
        logits = self.logits(video, text)
        own = torch.arange(len(logits))
        return (-logits.log_softmax(1)[own, own].mean() - logits.log_softmax(0)[own, own].mean()) / 2
