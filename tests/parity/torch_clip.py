"""The reference implementations with random numbers in every parameter, and their own files.

OpenAI's and OpenCLIP's modules are loaded by their paths, because importing their packages needs torchvision, which has
no CPU build beside every torch; from transformers comes `CLIPModel`. The three classes share one set of tensors. The
names and layouts are converted here by hand, so that nothing in this file depends on the package's tables.
It is one long file because each part works on the tensors and modules of the parts above.
"""

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import math
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import CLIPConfig, CLIPModel

from harvest_jax.model.config import HarvestConfig
from tests.parity.towers import Batch

State = dict[str, torch.Tensor]

# The deviation of patch and token embeddings and of the tables added to them. Its square is 250 times the epsilon of
# CLIP's norms, 1e-5: with 1e-6 in its place the first norm's result moves by 1e-3, ten times what a block may.
SMALL = 0.05


@dataclasses.dataclass
class Outputs:
    """What an implementation computes; numpy float32. The batches of pictures and captions may differ in length."""

    image: np.ndarray  # [B, D], normalised or not
    text: np.ndarray
    logits: np.ndarray | None = None  # [B pictures, B captions]
    image_layers: list[np.ndarray] | None = None  # [B, N, W]: what the first block gets, then what each block gives
    text_layers: list[np.ndarray] | None = None
    gradients: dict[str, np.ndarray] | None = None  # of the contrastive loss, laid out as our parameters are


# The modules


def package_folder(name: str, marker: str) -> Path:
    """Where an installed package lies, found without importing it; skips the test where it is not installed."""
    package = importlib.util.find_spec(name)
    for folder in (package.submodule_search_locations or []) if package else []:
        if (Path(folder) / marker).is_file():
            return Path(folder)
    pytest.skip(f"{name} with its {marker} is not installed: make parity installs it")


def has_open_clip() -> bool:
    """Whether OpenCLIP's module can be had."""
    try:
        package_folder("open_clip", "model.py")
    except pytest.skip.Exception:
        return False
    return True


@functools.cache
def module_by_path(path: Path) -> Any:
    """One file of a package, executed alone."""
    spec = importlib.util.spec_from_file_location(f"reference_{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def open_clip_model() -> Any:
    """OpenCLIP's `open_clip/model.py` with what it imports from beside it.

    Its package is entered under another name, so that its `__init__` does not run, and a batch norm that only its
    ResNets look for stands in for torchvision.
    """
    folder = package_folder("open_clip", "model.py")
    alias = "reference_open_clip"
    if alias not in sys.modules:
        package = types.ModuleType(alias)
        package.__path__ = [str(folder)]
        sys.modules[alias] = package
    with _placeholder_for_torchvision():
        return importlib.import_module(f"{alias}.model")


@contextlib.contextmanager
def _placeholder_for_torchvision() -> Iterator[None]:
    names = ("torchvision", "torchvision.ops", "torchvision.ops.misc")
    before = {name: sys.modules.get(name) for name in names}
    for name in names:
        sys.modules[name] = types.ModuleType(name)
    sys.modules["torchvision.ops.misc"].FrozenBatchNorm2d = type("FrozenBatchNorm2d", (), {})
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


@functools.cache
def timm_eva() -> Any:
    """timm's `models/eva.py` with its layers: neither its other models nor its data loaders, which need torchvision."""
    folder = package_folder("timm", "models/eva.py")
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "timm"}
    for name in ("timm", "timm.models"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(folder.joinpath(*name.split(".")[1:]))]
    sys.modules["timm"].__version__ = "0"
    sys.modules["timm.data"] = types.ModuleType("timm.data")
    for name in ("IMAGENET_DEFAULT_MEAN", "IMAGENET_DEFAULT_STD", "OPENAI_CLIP_MEAN", "OPENAI_CLIP_STD"):
        setattr(sys.modules["timm.data"], name, (0.5, 0.5, 0.5))  # of its descriptions of published files
    try:
        with _placeholder_for_torchvision():
            return importlib.import_module("timm.models.eva")
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
            del sys.modules[name]
        sys.modules.update(before)


def openai_clip(config: HarvestConfig) -> nn.Module:
    """OpenAI's `CLIP` without numbers (on the meta device).

    It knows neither heads of another width than 64 nor another activation than its own: for H/14 both are set here.
    """
    module = module_by_path(package_folder("clip", "model.py") / "model.py")
    video, text = config.video, config.text
    with torch.device("meta"):
        model = module.CLIP(
            embed_dim=video.embed_dim,
            image_resolution=video.image_size,
            vision_layers=video.layers,
            vision_width=video.width,
            vision_patch_size=video.patch_size,
            context_length=text.context_length,
            vocab_size=text.vocab_size,
            transformer_width=text.width,
            transformer_heads=text.heads,
            transformer_layers=text.layers,
        )
    mask = torch.full((text.context_length, text.context_length), -math.inf).triu(1)
    for block in model.transformer.resblocks:
        block.attn_mask = mask
    for tower, blocks in ((video, model.visual.transformer.resblocks), (text, model.transformer.resblocks)):
        for block in blocks:
            block.attn.num_heads = tower.heads
            block.attn.head_dim = tower.width // tower.heads
            if tower.activation == "gelu":
                block.mlp.gelu = nn.GELU()
    return model.eval()


def open_clip(config: HarvestConfig) -> nn.Module:
    """OpenCLIP's `CLIP` without numbers, from the fields of its `model_configs/*.json`."""
    video, text = config.video, config.text
    with torch.device("meta"):
        model = open_clip_model().CLIP(
            embed_dim=video.embed_dim,
            vision_cfg={
                "image_size": video.image_size,
                "patch_size": video.patch_size,
                "width": video.width,
                "layers": video.layers,
                "head_width": video.width // video.heads,
            },
            text_cfg={
                "context_length": text.context_length,
                "vocab_size": text.vocab_size,
                "width": text.width,
                "heads": text.heads,
                "layers": text.layers,
            },
            quick_gelu=video.activation == "quick_gelu",
        )
    model.attn_mask = torch.full((text.context_length, text.context_length), -math.inf).triu(1)
    return model.eval()


def hugging_face_clip(config: HarvestConfig) -> CLIPModel:
    """transformers' `CLIPModel` without numbers."""
    video, text = config.video, config.text
    described = CLIPConfig(
        projection_dim=video.embed_dim,
        vision_config={
            "image_size": video.image_size,
            "patch_size": video.patch_size,
            "hidden_size": video.width,
            "intermediate_size": 4 * video.width,
            "num_hidden_layers": video.layers,
            "num_attention_heads": video.heads,
            "hidden_act": video.activation,
        },
        text_config={
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "hidden_size": text.width,
            "intermediate_size": 4 * text.width,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "hidden_act": text.activation,
            "eos_token_id": text.vocab_size - 1,
            "bos_token_id": text.vocab_size - 2,
        },
    )
    with torch.device("meta"):
        model = CLIPModel(described)
    for embeddings in (model.vision_model.embeddings, model.text_model.embeddings):
        embeddings.position_ids = torch.arange(embeddings.position_ids.shape[1])[None]
    return model.eval()


def filled(model: nn.Module, state: State) -> nn.Module:
    """The model with these very tensors as its parameters: names and shapes must be equal (strict)."""
    model.load_state_dict(state, strict=True, assign=True)
    return model.requires_grad_(False)


# The numbers


def random_state(config: HarvestConfig, seed: int, half: bool) -> State:
    """Random float32 numbers for every parameter, by OpenAI's names.

    Of such a size that everything shows in the result: norms and biases far from one and zero, attention with a few
    heavy tokens; what the first norm of a tower gets is as small as in trained models (`SMALL`), so that a norm with
    another epsilon shows. They are evenly distributed, because that takes seconds where normal numbers take minutes.

    Args:
      config: the towers.
      seed: of the generator.
      half: rounded to what float16 can hold, so that files of half the size hold the same numbers.
    """
    rng = np.random.Generator(np.random.SFC64(seed))
    state = {}
    for name, tensor in openai_clip(config).state_dict().items():
        mean, deviation = _mean_and_deviation(name, tuple(tensor.shape))
        bits = rng.integers(-(2**15), 2**15, tensor.numel(), dtype=np.int16)
        numbers = torch.from_numpy(bits).float().mul_(deviation * math.sqrt(3) / 2**15).add_(mean).reshape(tensor.shape)
        state[name] = numbers.half().float() if half else numbers
    return state


def _mean_and_deviation(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    if name == "logit_scale":
        return 3.5, 0.1
    if "ln_" in name:
        return (1.0, 0.3) if name.endswith("weight") else (0.0, 0.2)
    if name.endswith("bias"):
        return 0.0, 0.1
    if "embedding" in name:
        return 0.0, SMALL
    if name in ("visual.proj", "text_projection"):
        return 0.0, shape[0] ** -0.5
    inside = math.prod(shape[1:])  # torch's [out, in, ...]
    if name == "visual.conv1.weight":
        return 0.0, SMALL * inside**-0.5
    return 0.0, (1.5 if "in_proj" in name else 1.0) * inside**-0.5


def hugging_face_state(state: State) -> State:
    """OpenAI's names and layouts to those of `CLIPModel`, by hand; views where that will do."""
    known = {
        "logit_scale": "logit_scale",
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
        "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
        "visual.ln_post.weight": "vision_model.post_layernorm.weight",
        "visual.ln_post.bias": "vision_model.post_layernorm.bias",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "ln_final.weight": "text_model.final_layer_norm.weight",
        "ln_final.bias": "text_model.final_layer_norm.bias",
    }
    parts = (".attn.out_proj.", ".self_attn.out_proj."), (".mlp.c_fc.", ".mlp.fc1."), (".mlp.c_proj.", ".mlp.fc2.")
    norms = (".ln_1.", ".layer_norm1."), (".ln_2.", ".layer_norm2.")
    result: State = {}
    for name, tensor in state.items():
        if name in known:
            result[known[name]] = tensor
        elif name == "visual.proj":
            result["visual_projection.weight"] = tensor.T.contiguous()
        elif name == "text_projection":
            result["text_projection.weight"] = tensor.T.contiguous()
        else:
            tower = "vision_model" if name.startswith("visual.") else "text_model"
            theirs = f"{tower}.encoder.layers." + name.split("transformer.resblocks.")[1]
            for old, new in (*parts, *norms):
                theirs = theirs.replace(old, new)
            if ".attn.in_proj_" in theirs:
                for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                    result[theirs.replace(".attn.in_proj_", f".self_attn.{letter}_proj.")] = third
            else:
                result[theirs] = tensor
    return result


# What they compute


def as_torch(config: HarvestConfig, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels as the references take them, float32 [B, 3, S, S], and token ids."""
    mean, std = np.float32(config.preprocessing.mean), np.float32(config.preprocessing.std)
    pixels = (batch.pictures.astype(np.float32) / 255 - mean) / std
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()), torch.from_numpy(batch.ids).long()


def openai_outputs(model: nn.Module, pixels: torch.Tensor, ids: torch.Tensor) -> Outputs:
    """Embeddings, logits and blocks of OpenAI's module, the blocks by forward hooks."""
    towers = model.visual.transformer.resblocks, model.transformer.resblocks
    with torch.inference_mode(), _recorded(towers[0]) as image_layers, _recorded(towers[1]) as text_layers:
        logits = model(pixels, ids)[0].numpy()
    with torch.inference_mode():  # what stands between the last block and the logits, again: cheap, and by their code
        image, text = _openai_heads(model, image_layers[-1], text_layers[-1], ids)
    return Outputs(image, text, logits, image_layers, text_layers)


def _openai_heads(
    model: nn.Module, image: np.ndarray, text: np.ndarray, ids: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    pooled = model.visual.ln_post(torch.from_numpy(image)[:, 0]) @ model.visual.proj
    ends = model.ln_final(torch.from_numpy(text))[torch.arange(len(ids)), ids.argmax(-1)]
    return pooled.numpy(), (ends @ model.text_projection).numpy()


@contextlib.contextmanager
def _recorded(blocks: nn.Sequential) -> Iterator[list[np.ndarray]]:
    """Fills a list with the first block's input and every block's output, batch first, while inside."""
    layers: list[np.ndarray] = []
    hooks = [
        blocks[0].register_forward_pre_hook(
            lambda block, args: layers.append(args[0].detach().transpose(0, 1).numpy().copy())
        )
    ]
    for block in blocks:
        hooks.append(
            block.register_forward_hook(
                lambda block, args, out: layers.append(out.detach().transpose(0, 1).numpy().copy())
            )
        )
    try:
        yield layers
    finally:
        for hook in hooks:
            hook.remove()


def open_clip_outputs(model: nn.Module, pixels: torch.Tensor, ids: torch.Tensor) -> Outputs:
    """Embeddings and logits of OpenCLIP's module."""
    with torch.inference_mode():
        image, text = model.encode_image(pixels), model.encode_text(ids)
        scaled = model.logit_scale.exp() * nn.functional.normalize(image) @ nn.functional.normalize(text).T
        return Outputs(image.numpy(), text.numpy(), scaled.numpy())


def hugging_face_outputs(model: CLIPModel, pixels: torch.Tensor, ids: torch.Tensor) -> Outputs:
    """Embeddings, logits and blocks of `CLIPModel`, the blocks by `output_hidden_states`."""
    with torch.inference_mode():
        result = model(input_ids=ids, pixel_values=pixels, output_hidden_states=True)
        return Outputs(
            result.image_embeds.numpy(),
            result.text_embeds.numpy(),
            result.logits_per_image.numpy(),
            [layer.numpy() for layer in result.vision_model_output.hidden_states],
            [layer.numpy() for layer in result.text_model_output.hidden_states],
        )


# Gradients of the contrastive loss: of few parameters, because the way back to them is the whole model


def openai_gradients(model: nn.Module, pixels: torch.Tensor, ids: torch.Tensor) -> dict[str, np.ndarray]:
    """By OpenAI's module and torch's cross entropy, laid out as our parameters are."""
    image, text = (model.visual.transformer.resblocks, model.transformer.resblocks)
    blocks = {"video": image[len(image) // 2], "text": text[len(text) // 2]}
    chosen = {
        "video/patch_embedding": model.visual.conv1.weight,
        "video/qkv": blocks["video"].attn.in_proj_weight,
        "video/proj": model.visual.proj,
        "text/qkv": blocks["text"].attn.in_proj_weight,
        "text/text_projection": model.text_projection,
        "logit_scale": model.logit_scale,
    }
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    logits, transposed = model(pixels, ids)
    own = torch.arange(len(ids))
    loss = (nn.functional.cross_entropy(logits, own) + nn.functional.cross_entropy(transposed, own)) / 2
    found = dict(zip(chosen, torch.autograd.grad(loss, list(chosen.values())), strict=True))
    for parameter in chosen.values():
        parameter.requires_grad_(False)
    found["video/patch_embedding"] = _patches_first(found["video/patch_embedding"])
    for tower, block in blocks.items():
        heads = block.attn.num_heads
        found[f"{tower}/qkv"] = found[f"{tower}/qkv"].T.unflatten(1, (3, heads, -1))
    return {name: gradient.numpy() for name, gradient in found.items()} | {"loss": loss.detach().numpy()}


def hugging_face_gradients(model: CLIPModel, pixels: torch.Tensor, ids: torch.Tensor) -> dict[str, np.ndarray]:
    """By `CLIPModel` and its own loss, laid out as our parameters are."""
    image, text = model.vision_model.encoder.layers, model.text_model.encoder.layers
    blocks = {"video": image[len(image) // 2].self_attn, "text": text[len(text) // 2].self_attn}
    chosen = {
        "video/patch_embedding": model.vision_model.embeddings.patch_embedding.weight,
        "video/proj": model.visual_projection.weight,
        "text/text_projection": model.text_projection.weight,
        "logit_scale": model.logit_scale,
    }
    for tower, block in blocks.items():
        chosen |= {f"{tower}/{part}": getattr(block, f"{part}_proj").weight for part in "qkv"}
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    loss = model(input_ids=ids, pixel_values=pixels, return_loss=True).loss
    found = dict(zip(chosen, torch.autograd.grad(loss, list(chosen.values())), strict=True))
    for parameter in chosen.values():
        parameter.requires_grad_(False)
    found["video/patch_embedding"] = _patches_first(found["video/patch_embedding"])
    for name in ("video/proj", "text/text_projection"):
        found[name] = found[name].T
    for tower, block in blocks.items():
        thirds = [found.pop(f"{tower}/{part}").T.unflatten(1, (block.num_heads, -1)) for part in "qkv"]
        found[f"{tower}/qkv"] = torch.stack(thirds, dim=1)
    return {name: gradient.numpy() for name, gradient in found.items()} | {"loss": loss.detach().numpy()}


def _patches_first(kernel: torch.Tensor) -> torch.Tensor:
    """[width, channel, row, column] to [(row, column, channel), width]."""
    return kernel.permute(2, 3, 1, 0).reshape(-1, kernel.shape[0])


# Their files


def save_openai_archive(model: nn.Module, path: Path, half: bool) -> None:
    """As OpenAI published its own: a traced module, its three sizes kept as tensors; with `half` in their float16.

    `half` changes the model. What is traced is code, and nothing here runs it again: so the forward pass is traced in
    float32 (float16 takes a CPU minutes) and on a picture of a single patch.
    """
    visual = model.visual
    sizes = {
        "input_resolution": visual.input_resolution,
        "context_length": model.positional_embedding.shape[0],
        "vocab_size": model.token_embedding.weight.shape[0],
    }
    for name, number in sizes.items():
        if name in vars(model):
            delattr(model, name)
        if not hasattr(model, name):
            model.register_buffer(name, torch.tensor(number))
    table, patch = visual.positional_embedding.data, visual.conv1.weight.shape[-1]
    visual.positional_embedding.data = table[:2]
    example = torch.zeros(1, 3, patch, patch), torch.zeros(1, sizes["context_length"], dtype=torch.int32)
    with torch.no_grad(), _quiet():
        traced = torch.jit.trace(model, example, check_trace=False)
        visual.positional_embedding.data = table
        if half:
            module_by_path(package_folder("clip", "model.py") / "model.py").convert_weights(model)
        torch.jit.save(traced, path)


def archive_tensors(path: Path) -> State:
    """What torch itself finds in an archive, the three sizes left out, as OpenAI's `build_model` does."""
    with _quiet():
        state = torch.jit.load(path, map_location="cpu").state_dict()
    return {
        name: tensor.detach()
        for name, tensor in state.items()
        if name not in ("input_resolution", "context_length", "vocab_size")
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch warns that TorchScript is deprecated, and of what a traced module would not do: nothing runs it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        yield
