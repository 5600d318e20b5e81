"""The training step of `harvest_jax.train` in PyTorch, written to be fast: the other side of `vs_torch.py`.

The same towers, losses, optimizer and schedule (`tests/parity/test_torch_step.py` holds the two sides equal), with what
PyTorch offers for speed: `scaled_dot_product_attention`, one fused query-key-value matrix, bfloat16 autocast with the
residual stream in bfloat16 too, `torch.compile` over loss and gradient, the fused AdamW, gradients set to None, and
nothing read back to the host inside a step. Frozen matrices are stored in the compute dtype and get no gradient.

Dropping is a gather after the patch embedding of all patches, as in the ancestors (InternVideo's `viclip_vision.py` and
CoTrain's `clip_module.py` mask tokens inside the tower); `drop="before"` gathers pixels first, as ours does.

It does less than our step: no gradient norm, no accuracies, no update withheld when a number is not finite.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harvest_jax.config.run import RunConfig, TrainFields
from harvest_jax.model.config import DecoderConfig, HarvestConfig, TextConfig, VideoConfig

LAYER_NORM_EPS = 1e-5
MAX_LOGIT_SCALE = math.log(100.0)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
NO_DECAY = re.compile(r".*(bias|scale|embedding)$")


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


class HarvestLoss(nn.Module):
    """The model with its objective: a batch in, the weighted sum of both losses out."""

    def __init__(self, run: RunConfig, config: HarvestConfig, drop: str = "after") -> None:
        super().__init__()
        if config.decoder is None or run.text.mask_ratio == 0 or run.train.mlm_weight == 0:
            raise ValueError("the comparison is of the whole step: it needs the decoder and masked words")
        if run.text.contrastive != "masked" or run.train.contrastive_weight == 0:
            raise ValueError("the comparison is of the step with one text pass, text.contrastive=masked")
        self.train_fields, self.dtype = run.train, DTYPES[run.model.dtype]
        self.video = VideoTower(config.video, config.preprocessing.mean, config.preprocessing.std, drop)
        self.text = TextTower(config.text)
        self.decoder = MlmDecoder(config.decoder)
        self.mask_embedding = nn.Parameter(torch.empty(config.text.width))
        self.logit_scale = nn.Parameter(torch.empty(()))

    def forward(self, patches: Tensor, positions: Tensor, ids: Tensor, slots: Tensor, slot_weights: Tensor) -> Tensor:
        """patches uint8 [B, N, P], positions, ids [B, L], slots [B, M] int64, slot_weights float32 [B, M] -> []."""
        with torch.autocast(patches.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            memory, video = self.video(patches, positions, self.dtype)
            places = torch.arange(ids.shape[1], device=ids.device)
            masked = ((slots[..., None] == places) & (slot_weights[..., None] > 0)).any(dim=1)
            tokens, text = self.text(ids, masked, self.mask_embedding, self.dtype)
            hidden = tokens.gather(1, slots[..., None].expand(-1, -1, tokens.shape[-1]))
            logits = self.decoder(hidden, memory)
        with torch.autocast(patches.device.type, enabled=False):
            losses = F.cross_entropy(logits.float().flatten(0, 1), ids.gather(1, slots).flatten(), reduction="none")
            words = (losses * slot_weights.flatten()).sum() / slot_weights.sum().clamp(min=1.0)
            cosines = F.normalize(video, dim=-1) @ F.normalize(text, dim=-1).T
            similar = self.logit_scale.exp() * cosines
            own = torch.arange(len(similar), device=similar.device)
            pairs = (F.cross_entropy(similar, own) + F.cross_entropy(similar.T, own)) / 2
        return self.train_fields.contrastive_weight * pairs + self.train_fields.mlm_weight * words


def our_path(model: nn.Module, name: str) -> tuple[str, int | None]:
    """Path of a parameter in our tree, and its layer where ours are stacked: ("video/proj/kernel", None)."""
    *modules, last = name.split(".")
    owner = model.get_submodule(".".join(modules))
    if last == "weight":
        last = {nn.Linear: "kernel", nn.Embedding: "embedding"}.get(type(owner), "scale")
    layer = next((int(module) for module in modules if module.isdigit()), None)
    return "/".join([module for module in modules if not module.isdigit()] + [last]), layer


def from_ours(model: nn.Module, params: Mapping[str, Any]) -> dict[str, Tensor]:
    """Our numbers (or gradients) under this module's names: {"video/proj/kernel": array, ...} to float32 tensors.

    Raises:
      KeyError: our tree lacks a parameter.
      ValueError: one of ours has no counterpart here, or another size.
    """
    found, used = {}, set()
    for name, parameter in model.named_parameters():
        path, layer = our_path(model, name)
        sources = [path.replace("key_value", part) for part in ("key", "value")] if "key_value" in path else [path]
        used.update(sources)
        arrays = [np.asarray(params[source] if layer is None else params[source][layer]) for source in sources]
        shape = (len(parameter) // len(arrays), *parameter.shape[1:]) if parameter.ndim else ()
        if path.endswith("/kernel"):  # ours [in..., out...], theirs [out, in]
            arrays = [array.reshape(shape[::-1]).T for array in arrays]
        joined = np.concatenate([array.reshape(shape) for array in arrays]) if parameter.ndim else arrays[0]
        found[name] = torch.tensor(joined, dtype=torch.float32).contiguous()  # the fused AdamW looks at memory as it is
    if used != set(params):
        raise ValueError(f"no counterpart of {sorted(set(params) - used)}")
    return found


def load_ours(model: HarvestLoss, params: Mapping[str, Any]) -> None:
    """Fill the module with our numbers; frozen parameters stop asking for gradients, their matrices take the dtype."""
    model.load_state_dict(from_ours(model, params))
    for name, parameter in model.named_parameters():
        path, _ = our_path(model, name)
        if multiplier(path, model.train_fields) == 0:
            parameter.requires_grad_(False)
            if path.endswith(("/kernel", "/bias")) and "/ln_" not in path:
                parameter.data = parameter.data.to(model.dtype)


def multiplier(path: str, train: TrainFields) -> float:
    """Of the learning rate of one of our paths."""
    return next(value for pattern, value in train.lr_multipliers if re.fullmatch(pattern, path))


def optimizer(model: HarvestLoss) -> torch.optim.AdamW:
    """AdamW over what is trained, one group for each (multiplier, decay)."""
    train, groups = model.train_fields, {}
    for name, parameter in model.named_parameters():
        path, _ = our_path(model, name)
        if parameter.requires_grad:
            decay = 0.0 if NO_DECAY.match(path) else train.weight_decay
            groups.setdefault((multiplier(path, train), decay), []).append(parameter)
    tables = [{"params": of, "weight_decay": decay, "multiplier": times} for (times, decay), of in groups.items()]
    return torch.optim.AdamW(tables, lr=0.0, betas=(train.b1, train.b2), eps=train.eps, fused=True)


def learning_rate(train: TrainFields, step: int) -> float:
    """Linear from 0 to the peak, cosine to 0 at the last step."""
    warmup = min(train.warmup_steps, train.steps - 1)
    if step < warmup:
        return train.learning_rate * step / warmup
    return train.learning_rate * (1 + math.cos(math.pi * min((step - warmup) / (train.steps - warmup), 1.0))) / 2


@dataclasses.dataclass
class TorchStep:
    """Loss, gradient, update; `compiled` says whether `torch.compile` is in it."""

    model: HarvestLoss
    compiled: bool
    step: int = 0

    def __post_init__(self) -> None:
        self.optimizer = optimizer(self.model)
        self.loss = torch.compile(self.model, fullgraph=True, dynamic=False) if self.compiled else self.model

    def __call__(self, batch: dict[str, Tensor]) -> Tensor:
        """One step on a batch that lies on the model's device; the loss, not waited for."""
        loss = self.loss(**batch)
        loss.backward()
        if self.model.train_fields.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.model.train_fields.clip_norm, foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.model.train_fields, self.step) * group["multiplier"]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.model.logit_scale.clamp_(0.0, MAX_LOGIT_SCALE)
        self.step += 1
        return loss.detach()


def tensors(batch: Mapping[str, np.ndarray], device: str) -> dict[str, Tensor]:
    """Host arrays on the device, indices as int64."""
    found = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.items()}
    return {name: (x.long() if x.dtype == torch.int32 else x).to(device) for name, x in found.items()}
