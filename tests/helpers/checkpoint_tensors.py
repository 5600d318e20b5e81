"""Checkpoints of every family in memory: two small models, and tensors in which each number is another."""

import dataclasses
import json

import numpy as np

from harvest_jax.model.config import DecoderConfig, HarvestConfig, Preprocessing, TextConfig, VideoConfig
from harvest_jax.model.harvest import parameter_shapes
from harvest_jax.weights.families.family import Overrides
from harvest_jax.weights.files.tensors import Tensors, TensorSpec
from harvest_jax.weights.folder import save_tensors
from harvest_jax.weights.translate import to_family

# every size another number, heads of 64 as the published models have
IMAGE = HarvestConfig(
    name="ViT-128x3/4@12",
    video=VideoConfig(image_size=12, patch_size=4, num_frames=1, width=128, layers=3, heads=2, embed_dim=24),
    text=TextConfig(vocab_size=600, context_length=10, width=64, layers=2, heads=1, embed_dim=24),
    decoder=None,
)
VIDEO = dataclasses.replace(
    IMAGE, video=dataclasses.replace(IMAGE.video, num_frames=4), decoder=DecoderConfig(1, 64, 1, 128, 600)
)
SIGLIP = HarvestConfig(
    name="SigLIP-128x3/4@12",
    video=VideoConfig(
        image_size=12,
        patch_size=4,
        num_frames=1,
        width=128,
        layers=3,
        heads=2,
        embed_dim=128,
        activation="gelu_tanh",
        mlp_width=300,
        norm_eps=1e-6,
        class_token=False,
        patch_bias=True,
        pre_norm=False,
        pooling="attention",
        projection=False,
    ),
    text=TextConfig(
        vocab_size=600,
        context_length=10,
        width=64,
        layers=2,
        heads=1,
        embed_dim=128,
        activation="gelu_tanh",
        norm_eps=1e-6,
        causal=False,
        pooling="last",
        projection_bias=True,
    ),
    decoder=None,
    preprocessing=Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "squash"),
    logit_bias=True,
)

EVA = dataclasses.replace(
    IMAGE,
    name="EVA-128x3/4@12",
    video=dataclasses.replace(
        IMAGE.video,
        activation="swiglu",
        mlp_width=300,
        norm_eps=1e-6,
        inner_norms=True,
        rotary=True,
        rotary_grid=16,
        patch_bias=True,
        pre_norm=False,
        projection_bias=True,
    ),
    text=dataclasses.replace(IMAGE.text, activation="gelu"),
)
PE = dataclasses.replace(
    IMAGE,
    name="PE-128x3/4@12",
    video=dataclasses.replace(
        IMAGE.video,
        activation="gelu",
        rotary=True,
        rotary_start=1,
        pooling="attention",
        pooling_heads=8,
        pooling_mlp_width=260,
    ),
    text=dataclasses.replace(IMAGE.text, activation="gelu"),
    preprocessing=SIGLIP.preprocessing,
)


def small_config(family):
    """A small model that a family can hold."""
    if family.name in ("EVA-02-CLIP", "Perception Encoder (PE-Core)"):
        return EVA if family.name == "EVA-02-CLIP" else PE
    if family.name == "harvest_jax":
        return VIDEO
    if family.name == "ViCLIP":
        return dataclasses.replace(VIDEO, decoder=None)
    return SIGLIP if family.own_tokenizer else IMAGE


def counted(entries, where="memory", kind="test", details=None):
    """Tensors of float32 of these shapes in which no number occurs twice."""
    arrays, at = {}, 0.0
    for name, entry in entries.items():
        size = int(np.prod(entry.shape))
        arrays[name] = (at + np.arange(size)).astype(np.float32).reshape(entry.shape)
        at += size
    assert at < 2**24  # float32 counts no further
    specs = {name: TensorSpec(array.shape, array.dtype) for name, array in arrays.items()}
    return Tensors(kind, where, specs, arrays.__getitem__, details or {})


def native(config):
    """The parameters of a model, counted."""
    return counted({name: TensorSpec(shape, np.dtype(np.float32)) for name, shape in parameter_shapes(config).items()})


def of_family(family, config=IMAGE):
    """What a file of a family holds: names and shapes by its table, numbers counted in the file's own order."""
    return counted(to_family(native(config), family, config).entries)


def arrays_of(tensors):
    """Every tensor as an array."""
    return {name: np.array(tensors.read(name)) for name in tensors.entries}


def changed(values, path, value):
    """A deep copy of a JSON value with the field at "a.b.c" set."""

    copy = json.loads(json.dumps(values))
    *way, last = path.split(".")
    at = copy
    for name in way:
        at = at[name]
    at[last] = value
    return copy


def architecture(family, details=None, kind="safetensors", overrides=Overrides(), config=IMAGE):  # noqa: B008 (frozen)
    """What a family makes of its tensors of `config` and of the details beside them."""
    theirs = dataclasses.replace(of_family(family, config), kind=kind, details=details or {})
    return family.architecture(theirs, overrides)


def small_models(folder):
    """Model folders of IMAGE and VIDEO under `folder`, of random numbers: {"image": path, "video": path}."""
    rng = np.random.default_rng(0)
    for name, config in (("image", IMAGE), ("video", VIDEO)):
        arrays = {path: rng.normal(size=shape).astype(np.float32) for path, shape in parameter_shapes(config).items()}
        if name == "image":
            arrays["video/temporal_embedding"] *= 0
        entries = {path: TensorSpec(array.shape, array.dtype) for path, array in arrays.items()}
        save_tensors(folder / name, config, entries, arrays.__getitem__, {})
    return {name: folder / name for name in ("image", "video")}
