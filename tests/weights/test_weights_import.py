"""Checkpoints in: every family's names both ways, what is wrong with a file, what a file cannot say."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.model.config import (
    DecoderConfig,
    HarvestConfig,
    Preprocessing,
    TextConfig,
    VideoConfig,
    harvest_config,
)
from harvest_jax.weights.convert import Changes, export_model, import_checkpoint
from harvest_jax.weights.families import clip, scenic, viclip
from harvest_jax.weights.families.known import FAMILIES, family_of
from harvest_jax.weights.families.table import parameter_shapes
from harvest_jax.weights.files.safetensors_writer import write_safetensors
from harvest_jax.weights.files.tensors import BFLOAT16, Entry, Tensors
from harvest_jax.weights.folder import load_config, load_model
from harvest_jax.weights.resize import resize_spatial, resize_temporal
from harvest_jax.weights.translate import as_ours, as_theirs

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


def made_of(entries, where="memory", kind="test", details=None, start=0.0):
    """Tensors of float32 in which no number occurs twice."""
    arrays, at = {}, start
    for name, entry in entries.items():
        size = int(np.prod(entry.shape))
        arrays[name] = (at + np.arange(size)).astype(np.float32).reshape(entry.shape)
        at += size
    assert at < 2**24  # float32 counts no further
    return Tensors(
        kind, where, {name: Entry(a.shape, a.dtype) for name, a in arrays.items()}, arrays.__getitem__, details or {}
    )


def ours_of(config):
    return made_of({name: Entry(shape, np.dtype(np.float32)) for name, shape in parameter_shapes(config).items()})


def theirs_of(family, config=IMAGE):
    """What a file of that family holds: names and shapes by the table, numbers counted in the file's own order."""
    return made_of(as_theirs(ours_of(config), family, config).entries)


def arrays(tensors):
    return {name: np.array(tensors.read(name)) for name in tensors.entries}


@pytest.fixture(scope="module")
def openai():
    """The numbers of a file with OpenAI's names."""
    return arrays(theirs_of(clip.OPENAI))


@pytest.fixture
def checkpoint(tmp_path, openai):
    """A bare state_dict on disk, as a function of a change to it."""

    def write(change=lambda tensors: None):
        tensors = dict(openai)
        change(tensors)
        save_file(tensors, tmp_path / "clip.safetensors")
        return tmp_path / "clip.safetensors"

    return write


IMPORTED = [family for family in FAMILIES if family is not scenic.VIVIT]


@pytest.mark.parametrize("family", IMPORTED, ids=lambda family: family.name)
def test_both_ways_are_exact_and_nothing_is_lost(family):
    config = VIDEO if family in (clip.OURS, viclip.VICLIP) else IMAGE
    config = config if family is clip.OURS else dataclasses.replace(config, decoder=None)
    theirs = theirs_of(family, config)
    ours = as_ours(theirs, family, config)
    assert {name: entry.shape for name, entry in ours.entries.items()} == parameter_shapes(config)
    found = arrays(ours)
    for name, array in found.items():
        assert (array.shape, array.dtype) == (ours.entries[name].shape, ours.entries[name].dtype), name
    if family is not viclip.VICLIP:  # its temperature is computed: tests/weights/test_viclip_names.py
        for name, array in arrays(as_theirs(ours, family, config)).items():
            np.testing.assert_array_equal(array, theirs.read(name), err_msg=name)
        numbers = np.concatenate([array.ravel() for name, array in found.items() if name not in family.zeros])
        expected = np.concatenate([array.ravel() for array in arrays(theirs).values()])
        np.testing.assert_array_equal(np.sort(numbers), np.sort(expected))
    for name in family.zeros:
        assert not found[name].any()
    back = arrays(as_theirs(ours_of(config), family, config))
    again = made_of({name: Entry(array.shape, array.dtype) for name, array in back.items()})
    again = dataclasses.replace(again, read=back.__getitem__)
    for name, array in arrays(as_ours(again, family, config)).items():
        if name not in family.zeros and name != "logit_scale":
            np.testing.assert_array_equal(array, ours_of(config).read(name), err_msg=name)


@pytest.mark.parametrize("family", IMPORTED, ids=lambda family: family.name)
def test_each_is_recognised_by_one_family_alone(family):
    config = dataclasses.replace(VIDEO, decoder=None) if family is viclip.VICLIP else IMAGE
    assert [other.name for other in FAMILIES if other.recognise(theirs_of(family, config))] == [family.name]


def test_openai_places_are_what_torch_means(openai):
    """Against the definitions of torch's modules, number by number at a few places."""
    ours = as_ours(made_of({n: Entry(a.shape, a.dtype) for n, a in openai.items()}), clip.OPENAI, IMAGE)
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
    family = clip.HUGGING_FACE
    theirs, ours = arrays(theirs_of(family)), as_ours(theirs_of(family), family, IMAGE)
    kernel = ours.read("video/transformer/blocks/attn/qkv/kernel")
    for number, part in enumerate("qkv"):
        weight = theirs[f"vision_model.encoder.layers.1.self_attn.{part}_proj.weight"]
        np.testing.assert_array_equal(kernel[1, :, number].reshape(128, 128), weight.T)
    np.testing.assert_array_equal(ours.read("video/proj/kernel"), theirs["visual_projection.weight"].T)
    assert theirs["visual_projection.weight"].shape == (24, 128)
    assert theirs["text_model.embeddings.position_embedding.weight"].shape == (10, 64)


def test_import_writes_a_model_folder(checkpoint, openai, tmp_path):
    done = import_checkpoint(checkpoint(), tmp_path / "out", Changes(activation="gelu"))
    config, params = load_model(tmp_path / "out")
    gelu = {"activation": "gelu"}
    assert config == dataclasses.replace(
        IMAGE, video=dataclasses.replace(IMAGE.video, **gelu), text=dataclasses.replace(IMAGE.text, **gelu)
    )
    np.testing.assert_array_equal(params["video"]["class_embedding"], openai["visual.class_embedding"])
    assert done["family"] == "OpenAI CLIP or OpenCLIP"
    assert done["parameters"] == sum(array.size for array in openai.values()) + 128  # and a table of one frame
    assert "vocabulary has 600" in done["notes"][0]
    assert json.loads((tmp_path / "out/config.json").read_text())["origin"]["imported_from"] == "clip.safetensors"


def drop(name):
    return lambda tensors: tensors.pop(name)


def put(name, value):
    return lambda tensors: tensors.update({name: value})


BLOCK = "visual.transformer.resblocks.1"


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (drop("ln_final.bias"), ["1 of 74 tensors missing: ln_final.bias"]),
        (drop(f"{BLOCK}.ln_2.weight"), [f"missing: {BLOCK}.ln_2.weight"]),
        (put("logit_bias", np.zeros(1, np.float32)), ["1 left over, with no place in the towers: logit_bias"]),
        (
            lambda t: t.update({f"visual.attn_pool.{i}": t.pop(f"{BLOCK}.ln_{i}.bias") for i in (1, 2)}),
            [f"2 of 74 tensors missing: {BLOCK}.ln_1.bias, {BLOCK}.ln_2.bias", "2 left over", "visual.attn_pool.1"],
        ),
        (put("visual.proj", np.zeros((127, 24), np.float32)), ["visual.proj has [127, 24], not [128, 24]"]),
        (put("ln_final.bias", np.zeros((1, 64), np.float32)), ["1 of another shape: ln_final.bias has [1, 64]"]),
        (put("text_projection", np.zeros((64, 24), np.int8)), ["no", "floating-point", "text_projection (int8)"]),
        (put(f"{BLOCK}.attn.in_proj_weight", np.full((384, 128), np.nan, np.float32)), [BLOCK, "not finite"]),
        (put("logit_scale", np.array(np.inf, np.float32)), ["logit_scale", "not finite"]),
        (drop("visual.conv1.weight"), ["holds no visual.conv1.weight"]),
        (put("visual.conv1.weight", np.zeros((128, 48), np.float32)), ["conv1.weight has the shape [128, 48]"]),
        (put("visual.positional_embedding", np.zeros((9, 128), np.float32)), ["table has 9 rows"]),
        (put("visual.layer1.0.conv1.weight", np.zeros(1, np.float32)), ["a ResNet", "only ViT"]),
        (
            put("visual.transformer.resblocks.0.mlp.c_fc.weight", np.zeros((558, 128), np.float32)),
            ["4.359 times as wide", "g/14"],
        ),
    ],
)
def test_wrong_contents_are_named_and_nothing_is_left(checkpoint, tmp_path, change, messages):
    source = checkpoint(change)
    with pytest.raises(DataError) as caught:
        import_checkpoint(source, tmp_path / "out", Changes(activation="gelu"))
    for message in messages:
        assert message in str(caught.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_long_lists_are_cut_and_counted(checkpoint, tmp_path):
    def change(tensors):
        for name in [name for name in tensors if ".resblocks.1." in name and name.startswith("visual.")]:
            tensors[name.replace(".1.", ".7.", 1)] = tensors.pop(name)

    with pytest.raises(DataError, match=r"12 of 74 tensors missing: .*, \.\.\.; 12 left over"):
        import_checkpoint(checkpoint(change), tmp_path / "out", Changes(activation="gelu"))


def test_buffers_are_no_parameters(checkpoint, tmp_path):
    def change(tensors):
        tensors["attn_mask"] = tensors["transformer.resblocks.1.attn_mask"] = np.full((10, 10), -np.inf, np.float32)
        tensors["input_resolution"] = np.array(12)

    import_checkpoint(checkpoint(change), tmp_path / "out", Changes(activation="gelu"))
    with pytest.raises(DataError, match=r"left over.*: attn_mask\.x"):
        import_checkpoint(checkpoint(put("attn_mask.x", np.zeros(1))), tmp_path / "2", Changes(activation="gelu"))


def test_other_checkpoints_are_named(tmp_path):
    save_file({"roberta.embeddings": np.zeros(3, np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(DataError, match=r"x\.safetensors.*roberta\.embeddings.*is no checkpoint.*Hugging Face CLIP"):
        import_checkpoint(tmp_path / "x.safetensors", tmp_path / "out")
    with pytest.raises(DataError, match="does not exist"):
        import_checkpoint(tmp_path / "gone", tmp_path / "out")


def test_what_is_there_is_not_overwritten(checkpoint, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("x")
    with pytest.raises(DataError, match="out exists already"):
        import_checkpoint(checkpoint(), tmp_path / "out", Changes(activation="gelu"))


# What no tensor says


def architecture(family, details=None, kind="safetensors", activation=None, config=IMAGE):
    theirs = dataclasses.replace(theirs_of(family, config), kind=kind, details=details or {})
    return family.architecture(theirs, activation)


def test_the_activation_must_be_known():
    for family in (clip.OPENAI, clip.HUGGING_FACE):
        with pytest.raises(ConfigError, match=r"give --activation quick_gelu .* or --activation gelu"):
            architecture(family)
        assert architecture(family, activation="gelu").video.activation == "gelu"
    archive = {"kind": "TorchScript archive", "details": {"input_resolution": 224}}
    assert architecture(clip.OPENAI, **archive).text.activation == "quick_gelu"
    with pytest.raises(ConfigError, match="give --activation"):  # a traced OpenCLIP model keeps no such number
        architecture(clip.OPENAI, kind="TorchScript archive")


@pytest.mark.parametrize("size", ["B/32", "B/16", "L/14", "L/14@336", "H/14"])
@pytest.mark.parametrize("family", [clip.OPENAI, clip.HUGGING_FACE], ids=["openai", "hf"])
def test_published_sizes_are_read_from_the_shapes(size, family):
    """Headers alone: nothing of these sizes is in memory."""
    config = harvest_config(size, num_frames=1, decoder_layers=0)
    shapes = {name: Entry(shape, np.dtype(np.float16)) for name, shape in parameter_shapes(config).items()}
    theirs = as_theirs(Tensors("test", "memory", shapes, lambda name: pytest.fail("read")), family, config)
    assert family_of(theirs) is family
    assert family.architecture(theirs, config.video.activation) == config
    as_ours(theirs, family, config)


OPEN_CLIP = {
    "model_cfg": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 12, "layers": 3, "width": 128, "patch_size": 4},
        "text_cfg": {"context_length": 10, "vocab_size": 600, "width": 64, "heads": 4, "layers": 2},
    },
    "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]},
}


def changed(values, path, value):
    """A deep copy with one field set."""
    copy = json.loads(json.dumps(values))
    *way, last = path.split(".")
    at = copy
    for name in way:
        at = at[name]
    at[last] = value
    return copy


def test_open_clip_config_is_read():
    found = architecture(clip.OPENAI, {"open_clip_config": OPEN_CLIP})
    assert (found.video.activation, found.text.activation) == ("gelu", "gelu")
    assert (found.video.heads, found.text.heads) == (2, 4)
    assert found.preprocessing == Preprocessing((0.5, 0.4, 0.3), (0.2, 0.2, 0.1), "crop")
    quick = changed(changed(OPEN_CLIP, "model_cfg.quick_gelu", True), "model_cfg.vision_cfg.head_width", 32)
    quick = changed(quick, "preprocess_cfg.resize_mode", "squash")
    found = architecture(clip.OPEN_CLIP_TEXT, {"open_clip_config": quick})
    assert (found.video.activation, found.video.heads, found.preprocessing.resize) == ("quick_gelu", 4, "squash")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model_cfg.vision_cfg.pool_type", "avg", "pool_type='avg'"),
        ("model_cfg.vision_cfg.no_ln_pre", True, "no_ln_pre=True"),
        ("model_cfg.vision_cfg.act_kwargs", {"approximate": "tanh"}, "act_kwargs"),
        ("model_cfg.vision_cfg.mlp_ratio", 4.3637, "mlp_ratio=4.3637"),
        ("model_cfg.text_cfg.no_causal_mask", True, "no_causal_mask=True"),
        ("model_cfg.text_cfg.hf_tokenizer_name", "bert-base-uncased", "hf_tokenizer_name"),
        ("model_cfg.text_cfg.norm_kwargs", {"eps": 1e-6}, "norm_kwargs"),
        ("model_cfg.text_cfg.heads", "8", "heads of its config should be a positive whole number"),
        ("model_cfg.text_cfg.heads", 7, "width 64 cannot have 7 heads"),
        ("model_cfg.vision_cfg.head_width", 1000, "cannot have 0 heads"),
        ("model_cfg.text_cfg", [1], "text_cfg should be a JSON object"),
        ("preprocess_cfg.mean", [1, 2], "mean of its config should be three numbers"),
        ("preprocess_cfg.mean", [10**400, 0, 0], "mean of its config should be three numbers"),
        ("model_cfg.vision_cfg.a\n\x1b[2J", "b" * 1000, "a\\n\\x1b[2J="),
        ("preprocess_cfg.std", [0, 1, 1], "above zero"),
        ("preprocess_cfg.interpolation", "bilinear", "interpolation='bilinear'"),
        ("preprocess_cfg.resize_mode", "longest", "resize_mode='longest'"),
    ],
)
def test_open_clip_models_that_are_no_plain_clip_are_refused(path, value, message):
    with pytest.raises(DataError) as caught:
        architecture(clip.OPENAI, {"open_clip_config": changed(OPEN_CLIP, path, value)})
    assert message in str(caught.value)


HUGGING_FACE = {
    "model_type": "clip",
    "vision_config": {"num_attention_heads": 4, "hidden_act": "gelu", "image_size": 12},
    "text_config": {"num_attention_heads": 2, "eos_token_id": 2},
}


def test_hugging_face_configs_are_read():
    pictures = {
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_center_crop": False,
        "resample": 3,
        "size": {"height": 12, "width": 12},
    }
    found = architecture(clip.HUGGING_FACE, {"config": HUGGING_FACE, "preprocessor_config": pictures})
    assert (found.video.heads, found.video.activation) == (4, "gelu")
    assert (found.text.heads, found.text.activation) == (2, "quick_gelu")  # transformers' default
    assert found.preprocessing == Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "squash")
    old = {"vision_config": {}, "vision_config_dict": {"num_attention_heads": 1}, "text_config": None}
    found = architecture(clip.HUGGING_FACE, {"config": old})
    assert (found.video.heads, found.text.heads, found.preprocessing) == (1, 8, Preprocessing())


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model_type", "siglip", "is a 'siglip' model"),
        ("vision_config.hidden_act", "gelu_new", "has the activation 'gelu_new'"),
        ("text_config.layer_norm_eps", 1e-6, "epsilon of 1e-06"),
        ("text_config.layer_norm_eps", "x", "should be a number"),
        ("text_config.layer_norm_eps", 10**400, "should be a number"),
        ("text_config.layer_norm_eps", float("nan"), "should be a number"),
        ("text_config.eos_token_id", 7, "captions end with token 7"),
        ("text_config.num_attention_heads", 5, "width 64 cannot have 5 heads"),
        ("text_config.num_attention_heads", 0, "positive whole number"),
    ],
)
def test_hugging_face_models_that_are_no_plain_clip_are_refused(path, value, message):
    with pytest.raises((DataError, ConfigError)) as caught:
        architecture(clip.HUGGING_FACE, {"config": changed(HUGGING_FACE, path, value)})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("pictures", "resize"),
    [
        ({"size": 12, "crop_size": 12, "do_center_crop": True}, "crop"),  # as openai/clip-vit-* were published
        ({"size": {"shortest_edge": 12}, "crop_size": {"height": 12, "width": 12}}, "crop"),
        ({}, "crop"),
        ({"size": {"height": 12, "width": 12}, "do_center_crop": False}, "squash"),
        ({"size": {"height": 12, "width": 12}, "crop_size": {"height": 12, "width": 12}}, "squash"),
        ({"size": {"shortest_edge": 16}, "crop_size": 12}, "makes pictures of size"),
        ({"size": {"shortest_edge": 12}, "do_center_crop": False}, "makes pictures of size"),
        ({"size": {"height": 16, "width": 16}, "do_center_crop": False}, "makes pictures of size"),
        ({"size": {"longest_edge": 12}}, "makes pictures of size"),
        ({"do_normalize": False}, "has do_normalize=False"),
        ({"do_resize": False}, "has do_resize=False"),
        ({"do_rescale": False}, "has do_rescale=False"),
        ({"rescale_factor": 1.0}, "has rescale_factor=1.0"),
        ({"image_mean": [0.5, float("nan"), 0.5]}, "three numbers"),
        ({"image_std": [0.5, float("nan"), 0.5]}, "three numbers"),
    ],
)
def test_what_a_hugging_face_processor_does_is_understood_or_refused(pictures, resize):
    details = {"config": HUGGING_FACE, "preprocessor_config": pictures}
    if resize in ("crop", "squash"):
        assert architecture(clip.HUGGING_FACE, details).preprocessing.resize == resize
    else:
        with pytest.raises(DataError, match=resize):
            architecture(clip.HUGGING_FACE, details)


def test_a_bilinear_processor_is_refused():
    with pytest.raises(DataError, match="resample is 2"):
        architecture(clip.HUGGING_FACE, {"config": HUGGING_FACE, "preprocessor_config": {"resample": 2}})


def test_a_header_that_tells_of_endless_layers(tmp_path):
    """A name for each of 10^9 would take all memory; here are 5,000, so that a failure of this test is none."""
    video = dataclasses.replace(VIDEO, decoder=None)
    deep = dataclasses.replace(video, text=dataclasses.replace(video.text, layers=5000))
    arrays = {"text_encoder.token_embedding.weight": np.zeros(1), "vision_encoder.conv1.weight": np.zeros(1)}
    save_file(arrays, tmp_path / "x.safetensors", {"harvest_jax_config": json.dumps(deep.to_dict())})
    with pytest.raises(DataError, match="tells of 5000 layers and holds 2 tensors"):
        import_checkpoint(tmp_path / "x.safetensors", tmp_path / "out")


def test_a_single_number_may_have_one_axis(checkpoint, tmp_path):
    gelu = Changes(activation="gelu")
    import_checkpoint(checkpoint(put("logit_scale", np.ones(1, np.float32))), tmp_path / "1", gelu)
    assert load_model(tmp_path / "1")[1]["logit_scale"].shape == ()
    source = checkpoint(put("logit_scale", np.ones((1, 1), np.float32)))
    with pytest.raises(DataError, match=r"logit_scale has \[1, 1\], not \[\]"):
        import_checkpoint(source, tmp_path / "2", gelu)


@pytest.mark.parametrize(
    "text", ["[]", "{", "[" * 5000, '{"name": 1}', '{"name": 1, "video": [], "text": {}, "decoder": null}']
)
def test_a_damaged_header_of_our_own_is_named(tmp_path, text):
    ours = ours_of(IMAGE)
    write_safetensors(tmp_path / "x.safetensors", ours.entries, ours.read, {"harvest_jax_config": text})
    with pytest.raises(DataError, match="is of this package by its names"):
        import_checkpoint(tmp_path / "x.safetensors", tmp_path / "out")


def test_an_impossible_config_of_our_own_is_named(tmp_path):
    ours = ours_of(IMAGE)
    changes = ({"heads": 3}, {"width": -1}, {"patch_size": 0}, {"patch_size": "a"}, {"width": [1]}, {"layers": "x"})
    for change in changes:
        values = IMAGE.to_dict()
        values["video"] |= change
        header = {"harvest_jax_config": json.dumps(values)}
        write_safetensors(tmp_path / "x.safetensors", ours.entries, ours.read, header)
        for size in (None, 16):
            with pytest.raises(DataError):
                import_checkpoint(tmp_path / "x.safetensors", tmp_path / "out", Changes(image_size=size))


def test_a_foreign_vocabulary_is_refused(tmp_path):
    large = dataclasses.replace(IMAGE, text=dataclasses.replace(IMAGE.text, vocab_size=60_000))
    theirs = theirs_of(clip.OPENAI, large)
    write_safetensors(tmp_path / "x.safetensors", theirs.entries, theirs.read, {})
    with pytest.raises(DataError, match="vocabulary has 60000 entries"):
        import_checkpoint(tmp_path / "x.safetensors", tmp_path / "out", Changes(activation="gelu"))


# Changes on the way


def test_other_frames_and_another_resolution(checkpoint, openai, tmp_path):
    changes = Changes(num_frames=8, image_size=20, activation="quick_gelu")
    import_checkpoint(checkpoint(), tmp_path / "out", changes)
    config, params = load_model(tmp_path / "out")
    assert (config.video.num_frames, config.video.image_size, config.name) == (8, 20, "ViT-128x3/4@20")
    assert params["video"]["temporal_embedding"].shape == (8, 128)
    assert not params["video"]["temporal_embedding"].any()
    table = params["video"]["spatial_embedding"]
    assert table.shape == (26, 128)
    np.testing.assert_array_equal(table, resize_spatial(openai["visual.positional_embedding"], (3, 3), (5, 5)))
    import_checkpoint(tmp_path / "out", tmp_path / "same", Changes())  # a folder of ours goes in unchanged
    assert load_config(tmp_path / "same") == config
    with pytest.raises(ConfigError, match="image_size=18 is no multiple of the patch size 4"):
        import_checkpoint(checkpoint(), tmp_path / "x", Changes(image_size=18, activation="gelu"))
    with pytest.raises(ConfigError, match="num_frames=0"):
        import_checkpoint(checkpoint(), tmp_path / "x", Changes(num_frames=0, activation="gelu"))


def test_a_table_of_frames_is_resized(tmp_path):
    ours = ours_of(VIDEO)
    write_safetensors(
        tmp_path / "x.safetensors", ours.entries, ours.read, {"harvest_jax_config": json.dumps(VIDEO.to_dict())}
    )
    import_checkpoint(tmp_path / "x.safetensors", tmp_path / "out", Changes(num_frames=6))
    config, params = load_model(tmp_path / "out")
    assert config.video.num_frames == 6
    assert config.decoder == VIDEO.decoder
    expected = resize_temporal(ours.read("video/temporal_embedding"), 6)
    np.testing.assert_array_equal(params["video"]["temporal_embedding"], expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_stored_type(tmp_path, dtype):
    theirs = theirs_of(clip.OPENAI)
    small = {name: np.asarray(np.sin(theirs.read(name)), np.float16) for name in theirs.entries}
    save_file(small, tmp_path / "x.safetensors")
    import_checkpoint(tmp_path / "x.safetensors", tmp_path / "keep", Changes(activation="gelu"))
    import_checkpoint(tmp_path / "x.safetensors", tmp_path / "out", Changes(activation="gelu", dtype=dtype))
    kept = load_file(tmp_path / "keep/model.safetensors")
    assert {array.dtype for array in kept.values()} == {np.dtype(np.float16)}
    _, params = load_model(tmp_path / "out")
    error = np.abs(params["video"]["proj"]["kernel"] - small["visual.proj"].astype(np.float32)).max()
    assert error == 0 if dtype != "bfloat16" else 0 < error < 2**-8
    size = (tmp_path / "out/model.safetensors").stat().st_size / (tmp_path / "keep/model.safetensors").stat().st_size
    assert (size > 1.8) == (dtype == "float32")
    np.testing.assert_allclose(params["logit_scale"], small["logit_scale"].astype(np.float32))


def test_numbers_too_large_for_the_type_are_named(checkpoint, tmp_path):
    with pytest.raises(DataError, match="too large for float16"):
        import_checkpoint(checkpoint(), tmp_path / "out", Changes(activation="gelu", dtype="float16"))
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_mixed_and_rare_types_are_kept(tmp_path):
    """OpenAI's files have float16 matrices and float32 norms; parts of one of ours take the wider of both."""
    theirs = theirs_of(clip.HUGGING_FACE)
    part = "text_model.encoder.layers.0.self_attn.{}_proj.weight"
    types = {part.format("q"): BFLOAT16, part.format("k"): np.dtype(np.float16), "visual_projection.weight": BFLOAT16}
    arrays = {name: np.asarray(np.sin(theirs.read(name)), types.get(name, np.float32)) for name in theirs.entries}
    entries = {name: Entry(array.shape, array.dtype) for name, array in arrays.items()}
    write_safetensors(tmp_path / "x.safetensors", entries, arrays.__getitem__, {})
    import_checkpoint(tmp_path / "x.safetensors", tmp_path / "out", Changes(activation="gelu"))
    _, params = load_model(tmp_path / "out")
    np.testing.assert_array_equal(
        params["video"]["proj"]["kernel"], arrays["visual_projection.weight"].astype(np.float32).T
    )
    kernel = params["text"]["transformer"]["blocks"]["attn"]["qkv"]["kernel"][0, :, 0].reshape(64, 64)
    np.testing.assert_array_equal(kernel, arrays[part.format("q")].astype(np.float32).T)


def test_preprocessing_can_be_said(checkpoint, tmp_path):
    changes = Changes(activation="gelu", resize="squash", mean=(0.5, 0.5, 0.5))
    import_checkpoint(checkpoint(), tmp_path / "out", changes)
    assert load_config(tmp_path / "out").preprocessing == Preprocessing((0.5, 0.5, 0.5), Preprocessing().std, "squash")


# Out, and in again


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """An image and a video model on disk, of small random numbers."""
    made = {}
    rng = np.random.default_rng(0)
    for name, config in (("image", IMAGE), ("video", VIDEO)):
        arrays = {path: rng.normal(size=shape).astype(np.float32) for path, shape in parameter_shapes(config).items()}
        if name == "image":
            arrays["video/temporal_embedding"] *= 0
        file = tmp_path_factory.mktemp(name) / "x.safetensors"
        entries = {path: Entry(array.shape, array.dtype) for path, array in arrays.items()}
        write_safetensors(file, entries, arrays.__getitem__, {"harvest_jax_config": json.dumps(config.to_dict())})
        import_checkpoint(file, file.parent / "model")
        made[name] = file.parent / "model"
    return made


OUT = {"hf": "hf", "open_clip": "oc", "viclip": "v.safetensors", "scenic": "s.msgpack", "safetensors": "x.safetensors"}


@pytest.mark.parametrize(("form", "name"), OUT.items())
def test_an_image_model_comes_back_bit_for_bit(folders, tmp_path, form, name):
    export_model(folders["image"], form, tmp_path / name)
    import_checkpoint(tmp_path / name, tmp_path / "back")
    before, after = load_file(folders["image"] / "model.safetensors"), load_file(tmp_path / "back/model.safetensors")
    assert before.keys() == after.keys()
    for path in before:
        if form == "viclip" and path == "logit_scale":
            np.testing.assert_allclose(before[path], after[path], rtol=3e-7)
        else:
            np.testing.assert_array_equal(before[path], after[path], err_msg=path)
    assert load_config(tmp_path / "back") == load_config(folders["image"])


@pytest.mark.parametrize("form", ["viclip", "safetensors"])
def test_a_video_model_comes_back_bit_for_bit(folders, tmp_path, form):
    done = export_model(folders["video"], form, tmp_path / OUT[form])
    import_checkpoint(tmp_path / OUT[form], tmp_path / "back")
    before, after = load_file(folders["video"] / "model.safetensors"), load_file(tmp_path / "back/model.safetensors")
    for path in after:
        np.testing.assert_allclose(before[path], after[path], rtol=3e-7 if path == "logit_scale" else 0, err_msg=path)
    left = {path.split("/")[0] for path in before.keys() - after.keys()}
    assert left == set(done["left_out"]) == (set() if form == "safetensors" else {"decoder", "mask_embedding"})
    assert load_config(tmp_path / "back").video == VIDEO.video


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("form", ["hf", "open_clip", "scenic"])
def test_a_video_model_becomes_its_image_model(folders, tmp_path, form, dtype):
    """The frame's row is in every place but the class token's, not rounded to what the file stores its numbers in."""
    import_checkpoint(folders["video"], tmp_path / "video", Changes(dtype=dtype))
    done = export_model(tmp_path / "video", form, tmp_path / OUT[form])
    assert done["left_out"] == ["decoder", "mask_embedding"]
    assert "at one frame" in done["notes"][0]
    import_checkpoint(tmp_path / OUT[form], tmp_path / "back")
    before, after = load_file(tmp_path / "video/model.safetensors"), load_file(tmp_path / "back/model.safetensors")
    table, frames = (before[f"video/{name}_embedding"].astype(np.float32) for name in ("spatial", "temporal"))
    np.testing.assert_array_equal(after["video/spatial_embedding"][0], table[0])
    np.testing.assert_array_equal(after["video/spatial_embedding"][1:], table[1:] + resize_temporal(frames, 1))
    assert not after["video/temporal_embedding"].any()
    np.testing.assert_array_equal(after["video/proj/kernel"], before["video/proj/kernel"])


def test_exports_say_what_they_are(folders, tmp_path):
    export_model(folders["image"], "hf", tmp_path / "hf")
    files = ["config.json", "merges.txt", "model.safetensors", "preprocessor_config.json"]
    files += ["special_tokens_map.json", "tokenizer_config.json", "vocab.json"]
    assert sorted(path.name for path in (tmp_path / "hf").iterdir()) == files
    assert oct((tmp_path / "hf").stat().st_mode) == oct(folders["image"].stat().st_mode)
    config = json.loads((tmp_path / "hf/config.json").read_text())
    assert config["torch_dtype"] == "float32"
    assert config["vision_config"]["num_attention_heads"] == 2
    assert config["text_config"]["eos_token_id"] == 599
    vocabulary = json.loads((tmp_path / "hf/vocab.json").read_text())
    assert (len(vocabulary), vocabulary["<|endoftext|>"]) == (600, 599)
    export_model(folders["image"], "open_clip", tmp_path / "oc")
    config = json.loads((tmp_path / "oc/open_clip_config.json").read_text())
    assert config["model_cfg"]["quick_gelu"] is True
    assert config["model_cfg"]["vision_cfg"]["head_width"] == 64
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_exports_that_cannot_be(folders, tmp_path, checkpoint):
    with pytest.raises(ConfigError, match=r"ends in \.safetensors, not x"):
        export_model(folders["image"], "viclip", tmp_path / "x")
    with pytest.raises(ConfigError, match="no format 'onnx': hf, open_clip"):
        export_model(folders["image"], "onnx", tmp_path / "x")
    with pytest.raises(DataError, match="exists already"):
        export_model(folders["image"], "hf", folders["video"])
    import_checkpoint(checkpoint(), tmp_path / "gelu", Changes(activation="gelu"))
    for form in ("viclip", "scenic"):
        with pytest.raises(DataError, match="has the activation gelu"):
            export_model(tmp_path / "gelu", form, tmp_path / f"g{OUT[form]}")
    export_model(tmp_path / "gelu", "hf", tmp_path / "g")
    with pytest.raises(DataError, match="not a model folder of this package"):
        export_model(tmp_path / "g", "open_clip", tmp_path / "g2")


def test_a_damaged_model_leaves_nothing(folders, tmp_path):
    import shutil

    shutil.copytree(folders["image"], tmp_path / "bad")
    flat = load_file(tmp_path / "bad/model.safetensors")
    flat["video/ln_post/scale"][3] = np.nan
    save_file(flat, tmp_path / "bad/model.safetensors")
    for form, name in OUT.items():
        with pytest.raises(DataError, match="not finite"):
            export_model(tmp_path / "bad", form, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]
