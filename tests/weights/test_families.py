"""Every family's names, both ways, and the architecture that is read from its tensors."""

import dataclasses

import numpy as np
import pytest

from harvest_jax.errors import ConfigError
from harvest_jax.model.config import Preprocessing, harvest_config
from harvest_jax.model.harvest import parameter_shapes
from harvest_jax.weights.families import scenic, viclip
from harvest_jax.weights.families.eva import EVA02
from harvest_jax.weights.families.family import Overrides
from harvest_jax.weights.families.hugging_face import HUGGING_FACE
from harvest_jax.weights.families.openai import LONG_CLIP, OPENAI
from harvest_jax.weights.families.recognise import FAMILIES, family_of
from harvest_jax.weights.files.tensors import Tensors, TensorSpec
from harvest_jax.weights.translate import to_family, to_native
from tests.helpers.checkpoint_tensors import IMAGE, architecture, arrays_of, counted, native, of_family, small_config

CLIP = Overrides(resize="crop", mean=Preprocessing().mean, std=Preprocessing().std)


@pytest.fixture(scope="module")
def openai():
    """The numbers of a file with OpenAI's names."""
    return arrays_of(of_family(OPENAI))


IMPORTED = [family for family in FAMILIES if family is not scenic.VIVIT]
# ViCLIP's temperature is computed (tests/weights/test_viclip.py); of Long-CLIP's two tables parts are kept (below).
# EVA-02's keys have no bias (tests/weights/test_rotary_families.py).
COMPUTED = (viclip.VICLIP, LONG_CLIP)
KEYS_BIAS = "video/transformer/blocks/attn/qkv/bias"


def without_keys_bias(family, name, array):
    """Our parameter with what the family has no place for set to zero."""
    if family is EVA02 and name == KEYS_BIAS:
        array = array.copy()
        array[:, 1] = 0
    return array


@pytest.mark.parametrize("family", IMPORTED, ids=lambda family: family.name)
def test_both_ways_are_exact_and_nothing_is_lost(family):
    config = small_config(family)
    theirs = of_family(family, config)
    ours = to_native(theirs, family, config)
    assert {name: entry.shape for name, entry in ours.entries.items()} == parameter_shapes(config)
    found = arrays_of(ours)
    for name, array in found.items():
        assert (array.shape, array.dtype) == (ours.entries[name].shape, ours.entries[name].dtype), name
    if family not in COMPUTED:
        for name, array in arrays_of(to_family(ours, family, config)).items():
            np.testing.assert_array_equal(array, theirs.read(name), err_msg=name)
        kept = {name: array for name, array in found.items() if name not in family.zeros}
        if family is EVA02:
            kept[KEYS_BIAS] = kept[KEYS_BIAS][:, [0, 2]]
        numbers = np.concatenate([array.ravel() for array in kept.values()])
        expected = np.concatenate([array.ravel() for array in arrays_of(theirs).values()])
        np.testing.assert_array_equal(np.sort(numbers), np.sort(expected))
    for name in family.zeros:
        assert not found[name].any()
    back = arrays_of(to_family(native(config), family, config))
    again = counted({name: TensorSpec(array.shape, array.dtype) for name, array in back.items()})
    again = dataclasses.replace(again, read=back.__getitem__)
    for name, array in arrays_of(to_native(again, family, config)).items():
        if name not in family.zeros and name != "logit_scale":
            expected = without_keys_bias(family, name, native(config).read(name))
            np.testing.assert_array_equal(array, expected, err_msg=name)


@pytest.mark.parametrize("family", IMPORTED, ids=lambda family: family.name)
def test_each_is_recognised_by_one_family_alone(family):
    theirs = of_family(family, small_config(family))
    assert [other.name for other in FAMILIES if other.recognise(theirs)] == [family.name]


def test_openai_places_are_what_torch_means(openai):
    """Against the definitions of torch's modules, number by number at a few places."""
    ours = to_native(counted({n: TensorSpec(a.shape, a.dtype) for n, a in openai.items()}), OPENAI, IMAGE)
    block = "visual.transformer.resblocks.2"
    width, head_dim = 128, 64
    kernel = ours.read("video/transformer/blocks/attn/qkv/kernel")  # layer, width, part, head, head_dim
    bias = ours.read("video/transformer/blocks/attn/qkv/bias")
    out = ours.read("video/transformer/blocks/attn/out/kernel")  # layer, head, head_dim, width
    for part, head, unit, column in ((0, 0, 5, 7), (1, 1, 63, 127), (2, 0, 0, 1)):
        row = part * width + head * head_dim + unit
        assert kernel[2, column, part, head, unit] == openai[f"{block}.attn.in_proj_weight"][row, column]
        assert bias[2, part, head, unit] == openai[f"{block}.attn.in_proj_bias"][row]
        assert out[2, head, unit, column] == openai[f"{block}.attn.out_proj.weight"][column, head * head_dim + unit]
    up = ours.read("text/transformer/blocks/mlp/c_fc/kernel")
    np.testing.assert_array_equal(up[1], openai["transformer.resblocks.1.mlp.c_fc.weight"].T)
    patch = ours.read("video/patch_embedding/kernel")  # (row, column, channel), width
    conv = openai["visual.conv1.weight"]
    for row, column, channel, unit in ((0, 0, 0, 0), (1, 3, 2, 77), (3, 0, 1, 127)):
        assert patch[(row * 4 + column) * 3 + channel, unit] == conv[unit, channel, row, column]
    np.testing.assert_array_equal(ours.read("video/proj/kernel"), openai["visual.proj"])
    assert openai["visual.proj"].shape == (128, 24)
    np.testing.assert_array_equal(ours.read("video/spatial_embedding"), openai["visual.positional_embedding"])
    np.testing.assert_array_equal(ours.read("text/text_projection/kernel"), openai["text_projection"])


def test_hugging_face_places_are_what_its_modules_mean():
    family = HUGGING_FACE
    theirs, ours = arrays_of(of_family(family)), to_native(of_family(family), family, IMAGE)
    kernel = ours.read("video/transformer/blocks/attn/qkv/kernel")
    for number, part in enumerate("qkv"):
        weight = theirs[f"vision_model.encoder.layers.1.self_attn.{part}_proj.weight"]
        np.testing.assert_array_equal(kernel[1, :, number].reshape(128, 128), weight.T)
    np.testing.assert_array_equal(ours.read("video/proj/kernel"), theirs["visual_projection.weight"].T)
    assert theirs["visual_projection.weight"].shape == (24, 128)
    assert theirs["text_model.embeddings.position_embedding.weight"].shape == (10, 64)


def test_long_clip_has_the_first_rows_of_one_table_and_the_rest_of_another():
    long = dataclasses.replace(IMAGE, text=dataclasses.replace(IMAGE.text, context_length=30))
    theirs = of_family(LONG_CLIP, long)
    found = LONG_CLIP.architecture(theirs, Overrides())
    assert (found.text.context_length, found.text.activation, found.video.activation) == (30, *["quick_gelu"] * 2)
    first, second = (theirs.read(name) for name in ("positional_embedding", "positional_embedding_res"))
    table = to_native(theirs, LONG_CLIP, long).read("text/positional_embedding")
    np.testing.assert_array_equal(table[:20], first[:20])
    np.testing.assert_array_equal(table[20:], second[20:])
    again = to_family(to_native(theirs, LONG_CLIP, long), LONG_CLIP, long)
    for name in ("positional_embedding", "positional_embedding_res"):
        np.testing.assert_array_equal(again.read(name), table)


@pytest.mark.parametrize(
    ("family", "width", "hidden", "heads"), [(OPENAI, 1408, 6144, 16), (HUGGING_FACE, 1664, 8192, 16)]
)
def test_the_mlp_of_g_14_and_of_big_g_14(family, width, hidden, heads):
    """Headers alone, by the shapes of the image tower."""
    video = dataclasses.replace(IMAGE.video, width=width, heads=heads, mlp_width=hidden)
    config = dataclasses.replace(IMAGE, video=video, name=f"ViT-{width}x3/4@12")
    shapes = {name: TensorSpec(shape, np.dtype(np.float16)) for name, shape in parameter_shapes(config).items()}
    theirs = to_family(Tensors("test", "memory", shapes, lambda name: pytest.fail("read")), family, config)
    found = family.architecture(theirs, dataclasses.replace(CLIP, activation="quick_gelu"))
    assert found == config
    to_native(theirs, family, found)


def test_the_activation_must_be_known():
    for family in (OPENAI, HUGGING_FACE):
        with pytest.raises(ConfigError, match=r"give --activation quick_gelu .* or --activation gelu"):
            architecture(family)
        assert architecture(family, overrides=dataclasses.replace(CLIP, activation="gelu")).video.activation == "gelu"
    archive = {"kind": "TorchScript archive", "details": {"input_resolution": 224}}
    assert architecture(OPENAI, **archive).text.activation == "quick_gelu"
    with pytest.raises(ConfigError, match="give --activation"):  # a traced OpenCLIP model keeps no such number
        architecture(OPENAI, kind="TorchScript archive")


@pytest.mark.parametrize("size", ["B/32", "B/16", "L/14", "L/14@336", "H/14"])
@pytest.mark.parametrize("family", [OPENAI, HUGGING_FACE], ids=["openai", "hf"])
def test_published_sizes_are_read_from_the_shapes(size, family):
    """Headers alone: nothing of these sizes is in memory."""
    config = harvest_config(size, num_frames=1, decoder_layers=0)
    shapes = {name: TensorSpec(shape, np.dtype(np.float16)) for name, shape in parameter_shapes(config).items()}
    theirs = to_family(Tensors("test", "memory", shapes, lambda name: pytest.fail("read")), family, config)
    assert family_of(theirs) is family
    overrides = dataclasses.replace(CLIP, activation=config.video.activation)
    assert family.architecture(theirs, overrides) == config
    to_native(theirs, family, config)
