"""The towers and the decoder of `harvest_jax.model` in PyTorch, for `torch_step.py`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harvest_jax.model.config import DecoderConfig, TextConfig, VideoConfig

LAYER_NORM_EPS = 1e-5


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x), CLIP's activation."""
    return x * torch.sigmoid(1.702 * x)


class LayerNorm(nn.LayerNorm):
    """Statistics in float32, result in the input's dtype."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=LAYER_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """[..., W] -> [..., W]."""
        if x.device.type == "cpu" and x.dtype == torch.bfloat16:
            return super().forward(x)  # the CPU's kernel takes bfloat16 with float32 weights and computes in float32
        return super().forward(x.float()).to(x.dtype)


class SelfAttention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, W] -> [B, N, W]."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # b heads n head_dim
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """From text positions [B, M, W] to video tokens [B, N, W]; key and value in one product."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key_value, self.out = (
            nn.Linear(width, width),
            nn.Linear(width, 2 * width),
            nn.Linear(width, width),
        )

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """[B, M, W], [B, N, W] -> [B, M, W]."""
        query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # b heads m head_dim
        key, value = self.key_value(memory).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers with the activation between."""

    def __init__(self, width: int, activation: str = "quick_gelu") -> None:
        super().__init__()
        self.activation = F.gelu if activation == "gelu" else quick_gelu
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., W] -> [..., W]."""
        return self.c_proj(self.activation(self.c_fc(x)))


class Block(nn.Module):
    """CLIP's pre-norm block."""

    def __init__(self, width: int, heads: int, causal: bool, activation: str) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = LayerNorm(width), LayerNorm(width)
        self.attn = SelfAttention(width, heads, causal)
        self.mlp = Mlp(width, activation)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, W] -> [B, N, W]."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """A stack of blocks."""

    def __init__(self, config: VideoConfig | TextConfig, causal: bool) -> None:
        super().__init__()
        blocks = [Block(config.width, config.heads, causal, config.activation) for _ in range(config.layers)]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, W] -> [B, N, W]."""
        return self.blocks(x)


class VideoTower(nn.Module):
    """Patches and kept cells -> tokens [B, 1 + K, W] and embedding float32 [B, D]."""

    def __init__(self, config: VideoConfig, mean: tuple[float, ...], std: tuple[float, ...], drop: str) -> None:
        super().__init__()
        self.cells, self.drop = config.cells_per_frame, drop
        pixels = config.patch_size**2
        self.register_buffer("mean", torch.tensor(mean).repeat(pixels), persistent=False)
        self.register_buffer("std", torch.tensor(std).repeat(pixels), persistent=False)
        self.patch_embedding = nn.Linear(config.patch_dim, config.width, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(config.width))
        self.spatial_embedding = nn.Parameter(torch.empty(1 + config.cells_per_frame, config.width))
        self.temporal_embedding = nn.Parameter(torch.empty(config.num_frames, config.width))
        self.ln_pre = LayerNorm(config.width)
        self.transformer = Transformer(config, causal=False)
        self.ln_post = LayerNorm(config.width)
        self.proj = nn.Linear(config.width, config.embed_dim, bias=False)

    def embed(self, patches: Tensor, dtype: torch.dtype) -> Tensor:
        """uint8 [B, N, P] -> [B, N, W] in `dtype`, without positions."""
        return self.patch_embedding(((patches / 255.0 - self.mean) / self.std).to(dtype))

    def forward(self, patches: Tensor, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """patches uint8 [B, T * cells, P], all of the clip; positions int64 [B, K]."""
        if self.drop == "before":
            kept = patches.gather(1, positions[..., None].expand(-1, -1, patches.shape[-1]))
            frame, cell = positions // self.cells, positions % self.cells
            x = self.embed(kept, dtype)
            x = x + self.spatial_embedding[1:][cell].to(dtype) + self.temporal_embedding[frame].to(dtype)
        else:  # tables are added by broadcasting, then tokens are dropped
            x = self.embed(patches, dtype).unflatten(1, (-1, self.cells))  # b frames cells w
            x = (x + self.spatial_embedding[1:].to(dtype) + self.temporal_embedding[:, None].to(dtype)).flatten(1, 2)
            x = x.gather(1, positions[..., None].expand(-1, -1, x.shape[-1]))
        first = (self.class_embedding + self.spatial_embedding[0]).to(dtype).expand(len(x), 1, -1)
        tokens = self.transformer(self.ln_pre(torch.cat([first, x], dim=1)))
        return tokens, self.proj(self.ln_post(tokens[:, 0])).float()


class TextTower(nn.Module):
    """Ids [B, L] -> tokens [B, L, W] and embedding float32 [B, D]."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, config.width))
        self.transformer = Transformer(config, causal=True)
        self.ln_final = LayerNorm(config.width)
        self.text_projection = nn.Linear(config.width, config.embed_dim, bias=False)

    def forward(
        self, ids: Tensor, masked: Tensor | None, mask_embedding: Tensor | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """`masked` bool [B, L]: where `mask_embedding` [W] stands for the word; None hides nothing."""
        x = self.token_embedding(ids)
        if masked is not None:
            x = torch.where(masked[..., None], mask_embedding, x)
        x = self.ln_final(self.transformer((x + self.positional_embedding[: ids.shape[1]]).to(dtype)))
        pooled = x[torch.arange(len(ids), device=ids.device), ids.argmax(dim=1)]
        return x, self.text_projection(pooled).float()


class DecoderBlock(nn.Module):
    """x += cross_attention(norm(x), norm(memory)); x += mlp(norm(x))."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.ln_1, self.ln_memory, self.ln_2 = (LayerNorm(config.width) for _ in range(3))
        self.cross_attn = CrossAttention(config.width, config.heads)
        self.mlp = Mlp(config.width)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """[B, M, W], [B, N, W] -> [B, M, W]."""
        x = x + self.cross_attn(self.ln_1(x), self.ln_memory(memory))
        return x + self.mlp(self.ln_2(x))


class MlmDecoder(nn.Module):
    """Text tokens at the masked slots [B, M, W] and video tokens [B, N, V] -> logits [B, M, vocabulary]."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width = config.width
        self.ln_video, self.ln_text = LayerNorm(config.memory_width), LayerNorm(width)
        self.video_proj, self.text_proj = nn.Linear(config.memory_width, width), nn.Linear(width, width)
        self.blocks = nn.ModuleList([DecoderBlock(config) for _ in range(config.layers)])
        self.ln_final, self.ln_head = LayerNorm(width), LayerNorm(width)
        self.head_dense, self.head_vocab = nn.Linear(width, width), nn.Linear(width, config.vocab_size)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """As the class says."""
        memory = self.video_proj(self.ln_video(memory))
        x = self.text_proj(self.ln_text(queries))
        for block in self.blocks:
            x = block(x, memory)
        return self.head_vocab(self.ln_head(F.gelu(self.head_dense(self.ln_final(x)))))
