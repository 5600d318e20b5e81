"""The training step of `harvest_jax.train` in PyTorch, written to be fast, for the comparison of `vs_torch.py`.

It has the same towers, losses, optimizer and schedule (checked by `tests/parity/test_torch_step.py`) and
PyTorch's means for speed: `scaled_dot_product_attention`, one fused query-key-value matrix, bfloat16 autocast with a
bfloat16 residual stream, `torch.compile` over loss and gradient, the fused AdamW, gradients set to None, and no value
read back to the host inside a step. Frozen matrices are stored in the compute dtype and get no gradient.

Patches are dropped after the patch embedding of all patches, as in InternVideo's `viclip_vision.py` and CoTrain's
`clip_module.py`, which mask tokens inside the tower. `drop="before"` gathers pixels first, as harvest_jax does.

It does less than harvest_jax's step: no gradient norm, no accuracies, and non-finite updates are not withheld.
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

from benchmarks.torch_model import MlmDecoder, TextTower, VideoTower
from harvest_jax.config.run import RunConfig, TrainFields
from harvest_jax.model.config import HarvestConfig

MAX_LOGIT_SCALE = math.log(100.0)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
NO_DECAY = re.compile(r".*(bias|scale|embedding)$")


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
