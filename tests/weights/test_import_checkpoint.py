"""`import_checkpoint`: what is wrong with a file, and what changes on the way."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.model.config import Preprocessing
from harvest_jax.weights.families.family import Overrides
from harvest_jax.weights.families.hugging_face import HUGGING_FACE
from harvest_jax.weights.families.openai import OPENAI
from harvest_jax.weights.files.safetensors_writer import write_safetensors
from harvest_jax.weights.files.tensors import BFLOAT16, TensorSpec
from harvest_jax.weights.folder import load_config, load_model
from harvest_jax.weights.import_checkpoint import import_checkpoint
from harvest_jax.weights.resize import resize_spatial, resize_temporal
from tests.helpers.checkpoint_tensors import IMAGE, VIDEO, arrays_of, native, of_family

GELU = Overrides(activation="gelu")
CLIP = Overrides("gelu", Preprocessing().resize, Preprocessing().mean, Preprocessing().std)


@pytest.fixture(scope="module")
def openai():
    """The numbers of a file with OpenAI's names."""
    return arrays_of(of_family(OPENAI))


@pytest.fixture
def checkpoint(tmp_path, openai):
    """A bare state_dict on disk, as a function of a change to it."""

    def write(change=lambda tensors: None):
        tensors = dict(openai)
        change(tensors)
        save_file(tensors, tmp_path / "clip.safetensors")
        return tmp_path / "clip.safetensors"

    return write


def test_import_writes_a_model_folder(checkpoint, openai, tmp_path):
    done = import_checkpoint(checkpoint(), tmp_path / "out", GELU)
    config, params = load_model(tmp_path / "out")
    gelu = {"activation": "gelu"}
    assert config == dataclasses.replace(
        IMAGE, video=dataclasses.replace(IMAGE.video, **gelu), text=dataclasses.replace(IMAGE.text, **gelu)
    )
    np.testing.assert_array_equal(params["video"]["class_embedding"], openai["visual.class_embedding"])
    assert done["family"] == "OpenAI CLIP or OpenCLIP"
    assert done["parameters"] == sum(array.size for array in openai.values()) + 128  # and a table of one frame
    assert "OpenAI's preprocessing is assumed" in done["notes"][0]
    assert "attention heads" in done["notes"][1]
    assert "vocabulary has 600" in done["notes"][2]
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
        (put("logit_bias", np.zeros(1, np.float32)), ["1 that no part of the model uses: logit_bias"]),
        (
            lambda t: t.update({f"visual.adapter.{i}": t.pop(f"{BLOCK}.ln_{i}.bias") for i in (1, 2)}),
            [
                f"2 of 74 tensors missing: {BLOCK}.ln_1.bias, {BLOCK}.ln_2.bias",
                "2 that no part of the model uses: visual.adapter.1",
            ],
        ),
        (put("visual.proj", np.zeros((127, 24), np.float32)), ["visual.proj has [127, 24], expected [128, 24]"]),
        (put("ln_final.bias", np.zeros((1, 64), np.float32)), ["1 of another shape: ln_final.bias has [1, 64]"]),
        (put("text_projection", np.zeros((64, 24), np.int8)), ["no", "floating-point", "text_projection (int8)"]),
        (put(f"{BLOCK}.attn.in_proj_weight", np.full((384, 128), np.nan, np.float32)), [BLOCK, "not finite"]),
        (put("logit_scale", np.array(np.inf, np.float32)), ["logit_scale", "not finite"]),
        (drop("visual.conv1.weight"), ["holds no visual.conv1.weight"]),
        (put("visual.conv1.weight", np.zeros((128, 48), np.float32)), ["conv1.weight has the shape [128, 48]"]),
        (put("visual.positional_embedding", np.zeros((9, 128), np.float32)), ["table of positions has 9 rows"]),
        (put("visual.layer1.0.conv1.weight", np.zeros(1, np.float32)), ["a ResNet", "only ViT"]),
        (
            put("visual.transformer.resblocks.0.mlp.c_fc.weight", np.zeros((558, 128), np.float32)),
            ["of another shape: visual.transformer.resblocks.1.mlp.c_fc.weight has [512, 128], expected [558, 128]"],
        ),
    ],
)
def test_wrong_contents_are_named_and_nothing_is_left(checkpoint, tmp_path, change, messages):
    source = checkpoint(change)
    with pytest.raises(DataError) as caught:
        import_checkpoint(source, tmp_path / "out", GELU)
    for message in messages:
        assert message in str(caught.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_long_lists_are_cut_and_counted(checkpoint, tmp_path):
    def change(tensors):
        for name in [name for name in tensors if ".resblocks.1." in name and name.startswith("visual.")]:
            tensors[name.replace(".1.", ".7.", 1)] = tensors.pop(name)

    with pytest.raises(DataError, match=r"12 of 74 tensors missing: .*, \.\.\.; 12 that no part of the model uses"):
        import_checkpoint(checkpoint(change), tmp_path / "out", GELU)


def test_buffers_are_no_parameters(checkpoint, tmp_path):
    def change(tensors):
        tensors["attn_mask"] = tensors["transformer.resblocks.1.attn_mask"] = np.full((10, 10), -np.inf, np.float32)
        tensors["input_resolution"] = np.array(12)

    import_checkpoint(checkpoint(change), tmp_path / "out", GELU)
    with pytest.raises(DataError, match=r"no part of the model uses: attn_mask\.x"):
        import_checkpoint(checkpoint(put("attn_mask.x", np.zeros(1))), tmp_path / "2", GELU)


def test_other_checkpoints_are_named(tmp_path):
    save_file({"roberta.embeddings": np.zeros(3, np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(DataError, match=r"roberta\.embeddings.*the family is not known.*Hugging Face CLIP"):
        import_checkpoint(tmp_path / "x.safetensors", tmp_path / "out")
    with pytest.raises(DataError, match="does not exist"):
        import_checkpoint(tmp_path / "gone", tmp_path / "out")


def test_what_is_there_is_not_overwritten(checkpoint, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("x")
    with pytest.raises(DataError, match="out exists already"):
        import_checkpoint(checkpoint(), tmp_path / "out", GELU)


def test_a_header_that_tells_of_endless_layers(tmp_path):
    """A name for each of 10^9 would take all memory; here are 5,000, so that a failure of this test is none."""
    video = dataclasses.replace(VIDEO, decoder=None)
    deep = dataclasses.replace(video, text=dataclasses.replace(video.text, layers=5000))
    arrays = {"text_encoder.token_embedding.weight": np.zeros(1), "vision_encoder.conv1.weight": np.zeros(1)}
    save_file(arrays, tmp_path / "x.safetensors", {"harvest_jax_config": json.dumps(deep.to_dict())})
    with pytest.raises(DataError, match="a config of 5000 layers and only 2 tensors"):
        import_checkpoint(tmp_path / "x.safetensors", tmp_path / "out")


def test_a_single_number_may_have_one_axis(checkpoint, tmp_path):
    import_checkpoint(checkpoint(put("logit_scale", np.ones(1, np.float32))), tmp_path / "1", GELU)
    assert load_model(tmp_path / "1")[1]["logit_scale"].shape == ()
    source = checkpoint(put("logit_scale", np.ones((1, 1), np.float32)))
    with pytest.raises(DataError, match=r"logit_scale has \[1, 1\], expected \[\]"):
        import_checkpoint(source, tmp_path / "2", GELU)


@pytest.mark.parametrize(
    "text", ["[]", "{", "[" * 5000, '{"name": 1}', '{"name": 1, "video": [], "text": {}, "decoder": null}']
)
def test_a_damaged_header_of_our_own_is_named(tmp_path, text):
    ours = native(IMAGE)
    write_safetensors(tmp_path / "x.safetensors", ours.entries, ours.read, {"harvest_jax_config": text})
    with pytest.raises(DataError, match="no sound config"):
        import_checkpoint(tmp_path / "x.safetensors", tmp_path / "out")


def test_an_impossible_config_of_our_own_is_named(tmp_path):
    ours = native(IMAGE)
    changes = ({"heads": 3}, {"width": -1}, {"patch_size": 0}, {"patch_size": "a"}, {"width": [1]}, {"layers": "x"})
    for change in changes:
        values = IMAGE.to_dict()
        values["video"] |= change
        header = {"harvest_jax_config": json.dumps(values)}
        write_safetensors(tmp_path / "x.safetensors", ours.entries, ours.read, header)
        for size in (None, 16):
            with pytest.raises(DataError):
                import_checkpoint(tmp_path / "x.safetensors", tmp_path / "out", image_size=size)


def test_a_foreign_vocabulary_is_refused(tmp_path):
    large = dataclasses.replace(IMAGE, text=dataclasses.replace(IMAGE.text, vocab_size=60_000))
    theirs = of_family(OPENAI, large)
    write_safetensors(tmp_path / "x.safetensors", theirs.entries, theirs.read, {})
    with pytest.raises(DataError, match="vocabulary of 60000 entries"):
        import_checkpoint(tmp_path / "x.safetensors", tmp_path / "out", GELU)
    chinese = of_family(OPENAI, dataclasses.replace(IMAGE, text=dataclasses.replace(IMAGE.text, vocab_size=21_128)))
    write_safetensors(tmp_path / "y.safetensors", chinese.entries, chinese.read, {})
    with pytest.raises(DataError, match=r"vocabulary of 21128 entries \(BERT's Chinese one, of Chinese-CLIP\)"):
        import_checkpoint(tmp_path / "y.safetensors", tmp_path / "out", GELU)
    with pytest.raises(ConfigError, match="is read with CLIP's tokenizer, which is built in"):
        import_checkpoint(tmp_path / "x.safetensors", tmp_path / "out", GELU, tokenizer=tmp_path / "t.json")


def test_other_frames_and_another_resolution(checkpoint, openai, tmp_path):
    quick = Overrides(activation="quick_gelu")
    import_checkpoint(checkpoint(), tmp_path / "out", quick, num_frames=8, image_size=20)
    config, params = load_model(tmp_path / "out")
    assert (config.video.num_frames, config.video.image_size, config.name) == (8, 20, "ViT-128x3/4@20")
    assert params["video"]["temporal_embedding"].shape == (8, 128)
    assert not params["video"]["temporal_embedding"].any()
    table = params["video"]["spatial_embedding"]
    assert table.shape == (26, 128)
    np.testing.assert_array_equal(table, resize_spatial(openai["visual.positional_embedding"], (3, 3), (5, 5)))
    import_checkpoint(tmp_path / "out", tmp_path / "same")  # a folder of ours goes in unchanged
    assert load_config(tmp_path / "same") == config
    with pytest.raises(ConfigError, match="image_size=18: must be a multiple of the patch size 4"):
        import_checkpoint(checkpoint(), tmp_path / "x", GELU, image_size=18)
    with pytest.raises(ConfigError, match="num_frames=0"):
        import_checkpoint(checkpoint(), tmp_path / "x", GELU, num_frames=0)


def test_a_table_of_frames_is_resized(tmp_path):
    ours = native(VIDEO)
    write_safetensors(
        tmp_path / "x.safetensors", ours.entries, ours.read, {"harvest_jax_config": json.dumps(VIDEO.to_dict())}
    )
    import_checkpoint(tmp_path / "x.safetensors", tmp_path / "out", num_frames=6)
    config, params = load_model(tmp_path / "out")
    assert config.video.num_frames == 6
    assert config.decoder == VIDEO.decoder
    expected = resize_temporal(ours.read("video/temporal_embedding"), 6)
    np.testing.assert_array_equal(params["video"]["temporal_embedding"], expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_stored_type(tmp_path, dtype):
    theirs = of_family(OPENAI)
    small = {name: np.asarray(np.sin(theirs.read(name)), np.float16) for name in theirs.entries}
    save_file(small, tmp_path / "x.safetensors")
    import_checkpoint(tmp_path / "x.safetensors", tmp_path / "keep", GELU)
    import_checkpoint(tmp_path / "x.safetensors", tmp_path / "out", GELU, dtype=dtype)
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
        import_checkpoint(checkpoint(), tmp_path / "out", GELU, dtype="float16")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_mixed_and_rare_types_are_kept(tmp_path):
    """OpenAI's files have float16 matrices and float32 norms; parts of one of ours take the wider of both."""
    theirs = of_family(HUGGING_FACE)
    part = "text_model.encoder.layers.0.self_attn.{}_proj.weight"
    types = {part.format("q"): BFLOAT16, part.format("k"): np.dtype(np.float16), "visual_projection.weight": BFLOAT16}
    arrays = {name: np.asarray(np.sin(theirs.read(name)), types.get(name, np.float32)) for name in theirs.entries}
    entries = {name: TensorSpec(array.shape, array.dtype) for name, array in arrays.items()}
    write_safetensors(tmp_path / "x.safetensors", entries, arrays.__getitem__, {})
    import_checkpoint(tmp_path / "x.safetensors", tmp_path / "out", CLIP)
    _, params = load_model(tmp_path / "out")
    np.testing.assert_array_equal(
        params["video"]["proj"]["kernel"], arrays["visual_projection.weight"].astype(np.float32).T
    )
    kernel = params["text"]["transformer"]["blocks"]["attn"]["qkv"]["kernel"][0, :, 0].reshape(64, 64)
    np.testing.assert_array_equal(kernel, arrays[part.format("q")].astype(np.float32).T)


def test_preprocessing_can_be_said(checkpoint, tmp_path):
    changes = Overrides(activation="gelu", resize="squash", mean=(0.5, 0.5, 0.5))
    import_checkpoint(checkpoint(), tmp_path / "out", changes)
    assert load_config(tmp_path / "out").preprocessing == Preprocessing((0.5, 0.5, 0.5), Preprocessing().std, "squash")
