"""ViCLIP's names: the table against names and shapes written down here by hand, and what is refused."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from harvest_jax.errors import DataError
from harvest_jax.model.config import HarvestConfig, Preprocessing, TextConfig, VideoConfig, harvest_config
from harvest_jax.model.harvest import Harvest
from harvest_jax.weights.export_model import export_model
from harvest_jax.weights.families.family import Overrides
from harvest_jax.weights.families.recognise import family_of
from harvest_jax.weights.families.viclip import TEMPERATURE, VICLIP
from harvest_jax.weights.files.tensors import Tensors, TensorSpec
from harvest_jax.weights.folder import load_model
from harvest_jax.weights.import_checkpoint import import_checkpoint
from harvest_jax.weights.translate import to_family, to_native

IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "squash")
TINY = HarvestConfig(
    name="ViT-128x2/8@16",
    video=VideoConfig(image_size=16, patch_size=8, num_frames=3, width=128, layers=2, heads=2, embed_dim=24),
    text=TextConfig(vocab_size=50, context_length=7, width=64, layers=3, heads=1, embed_dim=24),
    decoder=None,
    preprocessing=IMAGENET,
)


def viclip_shapes(config):
    """Names and shapes as torch's `state_dict` of InternVideo's ViCLIP lists them."""
    video, text = config.video, config.text
    shapes = {
        "temp": (),
        "vision_encoder.conv1.weight": (video.width, 3, 1, video.patch_size, video.patch_size),
        "vision_encoder.class_embedding": (video.width,),
        "vision_encoder.positional_embedding": (1 + (video.image_size // video.patch_size) ** 2, video.width),
        "vision_encoder.temporal_positional_embedding": (1, video.num_frames, video.width),
        "vision_encoder.proj": (video.width, video.embed_dim),
        "text_encoder.token_embedding.weight": (text.vocab_size, text.width),
        "text_encoder.positional_embedding": (text.context_length, text.width),
        "text_encoder.text_projection": (text.width, text.embed_dim),
    }
    norms = [("vision_encoder.ln_pre", video.width), ("vision_encoder.ln_post", video.width)]
    norms.append(("text_encoder.ln_final", text.width))
    for tower, size in (("vision_encoder", video), ("text_encoder", text)):
        for layer in range(size.layers):
            block, wide = f"{tower}.transformer.resblocks.{layer}", 4 * size.width
            shapes[f"{block}.attn.in_proj_weight"] = (3 * size.width, size.width)
            shapes[f"{block}.attn.in_proj_bias"] = (3 * size.width,)
            linear = {"attn.out_proj": (size.width, size.width), "mlp.c_fc": (wide, size.width)}
            for name, shape in (linear | {"mlp.c_proj": (size.width, wide)}).items():
                shapes[f"{block}.{name}.weight"], shapes[f"{block}.{name}.bias"] = shape, shape[:1]
            norms += [(f"{block}.ln_1", size.width), (f"{block}.ln_2", size.width)]
    for name, width in norms:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)
    return shapes


def tensors_of(arrays, where="here"):
    entries = {name: TensorSpec(array.shape, array.dtype) for name, array in arrays.items()}
    return Tensors("in memory", where, entries, arrays.__getitem__)


def random_checkpoint(config, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    arrays = {name: np.asarray(rng.normal(size=shape), dtype) for name, shape in viclip_shapes(config).items()}
    return arrays | {"temp": np.asarray(0.0137, dtype)}


def our_tensors(config):
    """Random parameters of ours as tensors."""
    shapes = traverse_util.flatten_dict(jax.eval_shape(Harvest(config).init, jax.random.key(0)), sep="/")
    rng = np.random.default_rng(1)
    return {name: np.asarray(rng.normal(size=leaf.shape), np.float32) for name, leaf in shapes.items()}


def read_all(tensors):
    return {name: tensors.read(name) for name in tensors.entries}


@pytest.mark.parametrize("size", ["tiny", "B/16", "L/14"])
def test_every_name_and_shape_is_viclips(size):
    config = TINY if size == "tiny" else harvest_config(size, decoder_layers=0)
    shapes = traverse_util.flatten_dict(jax.eval_shape(Harvest(config).init, jax.random.key(0)), sep="/")
    ours = Tensors(
        "", "", {n: TensorSpec(leaf.shape, np.dtype(np.float32)) for n, leaf in shapes.items()}, lambda name: 1 / 0
    )
    assert {name: entry.shape for name, entry in to_family(ours, VICLIP, config).entries.items()} == viclip_shapes(
        config
    )


@pytest.mark.parametrize("size", ["B/16", "L/14"])
def test_the_architecture_is_read_from_the_shapes(size):
    published = harvest_config(size, num_frames=8, decoder_layers=0)
    published = dataclasses.replace(
        published, text=dataclasses.replace(published.text, context_length=32), preprocessing=IMAGENET
    )
    shapes = viclip_shapes(published)
    theirs = Tensors("", "", {n: TensorSpec(s, np.dtype(np.float32)) for n, s in shapes.items()}, lambda name: 1 / 0)
    assert family_of(theirs) is VICLIP
    assert VICLIP.architecture(theirs, Overrides()) == published
    assert VICLIP.architecture(theirs, Overrides(activation="gelu")).video.activation == "gelu"


def test_ours_to_theirs_and_back_is_exact():
    ours = our_tensors(TINY)
    for inverse_temperature in (1 / 0.07, 100.0, 8.0, 2500.0):
        ours["logit_scale"] = np.asarray(np.log(inverse_temperature), np.float32)
        theirs = read_all(to_family(tensors_of(ours), VICLIP, TINY))
        back = read_all(to_native(tensors_of(theirs), VICLIP, TINY))
        assert back.keys() == ours.keys()
        for name, array in ours.items():
            np.testing.assert_array_equal(back[name], array, err_msg=name)
            assert back[name].dtype == np.float32


def test_theirs_to_ours_and_back_is_exact_but_for_the_last_digits_of_the_temperature():
    theirs = random_checkpoint(TINY)
    back = read_all(to_family(to_native(tensors_of(theirs), VICLIP, TINY), VICLIP, TINY))
    assert back.keys() == theirs.keys()
    for name in theirs.keys() - {"temp"}:
        np.testing.assert_array_equal(back[name], theirs[name], err_msg=name)
    worst = 0.0
    for temp in np.geomspace(0.001, 0.5, 4000, dtype=np.float32):
        logit_scale = TEMPERATURE.ours([np.asarray(temp)], ())
        worst = max(worst, abs(float(TEMPERATURE.theirs(logit_scale)[0]) / float(temp) - 1))
    assert 0 < worst <= 3.1e-7


def test_every_number_has_its_place():
    theirs = random_checkpoint(TINY)
    ours = read_all(to_native(tensors_of(theirs), VICLIP, TINY))
    # width 77, channel 2, row 3, column 5 of a patch of 8 x 8
    kernel = theirs["vision_encoder.conv1.weight"]
    assert ours["video/patch_embedding/kernel"][(3 * 8 + 5) * 3 + 2, 77] == kernel[77, 2, 0, 3, 5]
    # block 1: the key of head 1, its 9th number, from channel 100 of the input
    projection = theirs["vision_encoder.transformer.resblocks.1.attn.in_proj_weight"]
    assert ours["video/transformer/blocks/attn/qkv/kernel"][1, 100, 1, 1, 9] == projection[128 + 64 + 9, 100]
    bias = theirs["vision_encoder.transformer.resblocks.1.attn.in_proj_bias"]
    assert ours["video/transformer/blocks/attn/qkv/bias"][1, 2, 1, 9] == bias[2 * 128 + 64 + 9]
    out = theirs["vision_encoder.transformer.resblocks.0.attn.out_proj.weight"]
    assert ours["video/transformer/blocks/attn/out/kernel"][0, 1, 9, 100] == out[100, 64 + 9]
    frames = theirs["vision_encoder.temporal_positional_embedding"]
    assert ours["video/temporal_embedding"][2, 77] == frames[0, 2, 77]
    assert ours["video/proj/kernel"][77, 5] == theirs["vision_encoder.proj"][77, 5]
    assert (
        ours["text/transformer/blocks/mlp/c_fc/kernel"][2, 5, 200]
        == theirs["text_encoder.transformer.resblocks.2.mlp.c_fc.weight"][200, 5]
    )
    assert ours["logit_scale"] == np.float32(-np.log(np.float64(np.float32(0.0137))))


def test_a_temperature_in_half_precision_keeps_float32_to_native():
    """A logarithm near 4.6 has three digits in float16: exp of it would be wrong in the third."""
    ours = to_native(tensors_of(random_checkpoint(TINY, dtype=np.float16)), VICLIP, TINY)
    assert ours.entries["video/class_embedding"].dtype == np.float16
    assert ours.entries["logit_scale"].dtype == ours.read("logit_scale").dtype == np.float32
    assert float(np.exp(ours.read("logit_scale"))) == pytest.approx(1 / float(np.float16(0.0137)), rel=1e-6)


def converted(theirs):
    family = family_of(theirs)
    return to_native(theirs, family, family.architecture(theirs, Overrides()))


def change(name, shape):
    return random_checkpoint(TINY) | {name: np.zeros(shape, np.float32)}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (change("vision_encoder.conv1.weight", (128, 3, 2, 8, 8)), "embeds 2 frames at a time"),
        (change("vision_encoder.positional_embedding", (6, 128)), "6 rows"),
        (
            change("vision_encoder.temporal_positional_embedding", (3, 128)),
            "temporal_positional_embedding has the shape",
        ),
        (change("vision_encoder.ln_pre.bias", (64,)), r"vision_encoder.ln_pre.bias has \[64\], expected \[128\]"),
        (change("vision_encoder.head.weight", (3, 128)), "no part of the model uses: vision_encoder.head.weight"),
    ],
)
def test_other_towers_are_refused_in_one_line(arrays, message):
    with pytest.raises(DataError, match=message) as error:
        converted(tensors_of(arrays, "x.pth"))
    assert "\n" not in str(error.value)
    assert "x.pth" in str(error.value)


@pytest.mark.parametrize("name", [name for name in viclip_shapes(TINY) if "resblocks" not in name or ".1." in name])
def test_a_missing_tensor_is_named(name):
    arrays = random_checkpoint(TINY)
    del arrays[name]
    with pytest.raises(DataError, match=name):
        converted(tensors_of(arrays))


def test_a_file_becomes_a_model_folder_that_loads(tmp_path):
    arrays = random_checkpoint(TINY)
    save_file(arrays, tmp_path / "model.safetensors")
    summary = import_checkpoint(tmp_path / "model.safetensors", tmp_path / "imported")
    assert summary["family"] == "ViCLIP"
    config, params = load_model(tmp_path / "imported")
    assert config == TINY
    ours = to_native(tensors_of(arrays), VICLIP, TINY)
    for name, array in traverse_util.flatten_dict(params, sep="/").items():
        np.testing.assert_array_equal(array, ours.read(name), err_msg=name)
    export_model(tmp_path / "imported", "viclip", tmp_path / "out.safetensors")
    back = load_file(tmp_path / "out.safetensors")
    assert back.keys() == arrays.keys()
    for name in arrays.keys() - {"temp"}:
        np.testing.assert_array_equal(back[name], arrays[name], err_msg=name)
    assert float(back["temp"]) == pytest.approx(0.0137, rel=3.1e-7)


@pytest.mark.parametrize("temp", [0.0, -0.01])
def test_a_temperature_that_is_none_is_refused(tmp_path, temp):
    save_file(random_checkpoint(TINY) | {"temp": np.asarray(temp, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="logit_scale cannot be written: it holds numbers that are not finite"):
        import_checkpoint(tmp_path / "model.safetensors", tmp_path / "imported")
    assert not (tmp_path / "imported" / "config.json").exists()
