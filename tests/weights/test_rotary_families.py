"""EVA-02-CLIP and Perception Encoder: their towers from the shapes, names of both projects, what is refused."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import harvest_jax
from harvest_jax.errors import DataError
from harvest_jax.model.config import Preprocessing, TextConfig, VideoConfig
from harvest_jax.model.harvest import parameter_shapes
from harvest_jax.weights.families.architecture import clip_config
from harvest_jax.weights.families.eva import EVA02
from harvest_jax.weights.families.family import Overrides
from harvest_jax.weights.families.openai import OPENAI
from harvest_jax.weights.families.perception_encoder import PE_CORE, PICTURES
from harvest_jax.weights.families.recognise import recognised
from harvest_jax.weights.files.open_checkpoint import open_checkpoint
from harvest_jax.weights.files.tensors import Tensors, TensorSpec
from harvest_jax.weights.folder import load_config, open_model
from harvest_jax.weights.import_checkpoint import import_checkpoint
from harvest_jax.weights.translate import to_family, to_native
from tests.helpers.checkpoint_tensors import EVA, PE, arrays_of, native, of_family


def eva(image, patch, width, layers, embed_dim, words):
    video = VideoConfig(
        image,
        patch,
        1,
        width,
        layers,
        width // 64,
        embed_dim,
        "swiglu",
        mlp_width=width * 8 // 3,
        norm_eps=1e-6,
        inner_norms=True,
        rotary=True,
        rotary_grid=16,
        patch_bias=True,
        pre_norm=False,
        projection_bias=True,
    )
    text = TextConfig(49408, 77, words, 12, words // 64, embed_dim, "gelu")
    return clip_config(video, text, Preprocessing())


def pe(image, patch, width, layers, embed_dim, text, token=True, inside=0):
    context, words, text_layers = text
    video = VideoConfig(
        image,
        patch,
        1,
        width,
        layers,
        16 if width == 1536 else width // 64,
        embed_dim,
        "gelu",
        mlp_width=inside,
        rotary=True,
        rotary_start=int(token),
        class_token=token,
        pooling="attention",
        pooling_heads=8,
        pooling_mlp_width=4 * width if inside else 0,
    )
    return clip_config(video, TextConfig(49408, context, words, text_layers, words // 64, embed_dim, "gelu"), PICTURES)


SHORT = (32, 512, 12)
PUBLISHED = {
    "EVA02-B-16": (EVA02, eva(224, 16, 768, 12, 512, 512)),
    "EVA02-L-14": (EVA02, eva(224, 14, 1024, 24, 768, 768)),
    "EVA02-L-14-336": (EVA02, eva(336, 14, 1024, 24, 768, 768)),
    "PE-Core-T16-384": (PE_CORE, pe(384, 16, 192, 12, 512, SHORT)),
    "PE-Core-S16-384": (PE_CORE, pe(384, 16, 384, 12, 512, SHORT)),
    "PE-Core-B16-224": (PE_CORE, pe(224, 16, 768, 12, 1024, (32, 1024, 24))),
    "PE-Core-L14-336": (PE_CORE, pe(336, 14, 1024, 24, 1024, (32, 1024, 24))),
    "PE-Core-G14-448": (PE_CORE, pe(448, 14, 1536, 50, 1280, (72, 1280, 24), token=False, inside=8960)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_are_read_from_the_shapes(name):
    """Headers alone: nothing of these sizes is in memory."""
    family, config = PUBLISHED[name]
    shapes = {path: TensorSpec(shape, np.dtype(np.float16)) for path, shape in parameter_shapes(config).items()}
    theirs = to_family(Tensors("test", "memory", shapes, lambda path: pytest.fail("read")), family, config)
    assert family.recognise(theirs)
    assert family.architecture(theirs, Overrides()) == config
    to_native(theirs, family, config)


@pytest.mark.parametrize(("family", "config"), [(EVA02, EVA), (PE_CORE, PE)], ids=["EVA-02", "PE-Core"])
def test_channels_of_heads_are_moved_so_that_the_products_stay(family, config):
    """Queries and keys of a file, in pairs beside each other, and ours, in halves, are the same channels."""
    ours = to_native(of_family(family, config), family, config)
    theirs = arrays_of(of_family(family, config))
    kernel = ours.read("video/transformer/blocks/attn/qkv/kernel")[1]  # width, part, head, channel
    if family is EVA02:
        parts = [theirs[f"visual.trunk.blocks.1.attn.{part}_proj.weight"].T.reshape(128, 2, 64) for part in "qkv"]
    else:
        weight = theirs["visual.transformer.resblocks.1.attn.in_proj_weight"]
        parts = [part.T.reshape(128, 2, 64) for part in np.split(weight, 3)]
    axes = (0, 32) if family is EVA02 else (32, 0)  # where the channels begin that turn with the row, and the column
    for part in range(2):
        for axis, frequency, member in ((0, 0, 0), (0, 0, 1), (1, 5, 0), (1, 15, 1)):
            their = axes[axis] + 2 * frequency + member
            our = 32 * member + 16 * axis + frequency
            np.testing.assert_array_equal(kernel[:, part, :, our], parts[part][:, :, their])
    np.testing.assert_array_equal(kernel[:, 2], parts[2])


def test_keys_of_eva_02_have_no_bias():
    bias = to_native(of_family(EVA02, EVA), EVA02, EVA).read("video/transformer/blocks/attn/qkv/bias")
    assert not bias[:, 1].any()
    assert bias[:, [0, 2]].all()


def scaled(family, config):
    """The tensors of a small model with numbers that a tower can bear."""
    ours = native(config)
    small = dataclasses.replace(ours, read=lambda name: np.asarray(np.float32(0.3) * np.sin(ours.read(name))))
    return {name: np.ascontiguousarray(array) for name, array in arrays_of(to_family(small, family, config)).items()}


def open_clip_folder(folder, **changes):
    folder.mkdir()
    save_file(scaled(EVA02, EVA), folder / "open_clip_model.safetensors")
    vision = {"image_size": 12, "timm_model_name": "eva02_base_patch16_clip_224", "timm_pool": "token"}
    model = {
        "embed_dim": 24,
        "vision_cfg": vision | {"timm_model_pretrained": False, "timm_proj": None} | changes,
        "text_cfg": {"context_length": 10, "vocab_size": 600, "width": 64, "heads": 1, "layers": 2},
        "custom_text": True,
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
    return folder


def test_eva_02_from_a_folder_of_openclip(tmp_path):
    done = import_checkpoint(open_clip_folder(tmp_path / "a"), tmp_path / "out")
    assert done["family"] == "EVA-02-CLIP"
    assert [note.split()[1] for note in done["notes"]] == ["vocabulary"]  # of 600 entries: the test's own
    assert load_config(tmp_path / "out") == EVA
    for name, change in (
        ("b", {"timm_pool": "avg"}),
        ("c", {"timm_proj": "linear"}),
        ("d", {"timm_model_name": "eva02_enormous_patch14_clip_224"}),
    ):
        with pytest.raises(DataError, match=f"not plain CLIP: {next(iter(change))}"):
            import_checkpoint(open_clip_folder(tmp_path / name, **change), tmp_path / "x")


def test_eva_02_under_the_names_of_its_own_project(tmp_path):
    renamed = (
        ("visual.trunk.", "visual."),
        ("attn.norm.", "attn.inner_attn_ln."),
        ("q_proj.bias", "q_bias"),
        ("v_proj.bias", "v_bias"),
        ("fc1_g.", "w1."),
        ("fc1_x.", "w2."),
        ("mlp.norm.", "mlp.ffn_ln."),
        ("mlp.fc2.", "mlp.w3."),
    )
    arrays = {"visual.rope.freqs_cos": np.zeros((9, 64), np.float32)}
    for name, array in scaled(EVA02, EVA).items():
        new = name
        for old, theirs in renamed if name.startswith("visual.") else ():
            new = new.replace(old, theirs)
        arrays[new] = array
    save_file(arrays, tmp_path / "x.safetensors")
    done = import_checkpoint(tmp_path / "x.safetensors", tmp_path / "own")
    assert "attention heads" in done["notes"][0]
    assert "OpenAI's preprocessing is assumed" in done["notes"][1]
    import_checkpoint(open_clip_folder(tmp_path / "folder"), tmp_path / "openclip")
    (config, ours), (other, theirs) = open_model(tmp_path / "own"), open_model(tmp_path / "openclip")
    assert config == other == EVA
    for name in ours.entries:
        np.testing.assert_array_equal(ours.read(name), theirs.read(name), err_msg=name)


def test_pe_core_from_its_file_and_as_a_video_model(tmp_path):
    save_file(scaled(PE_CORE, PE), tmp_path / "x.safetensors")
    done = import_checkpoint(tmp_path / "x.safetensors", tmp_path / "out", num_frames=2)
    assert done["family"] == "Perception Encoder (PE-Core)"
    assert "bilinear" in done["notes"][0]
    assert load_config(tmp_path / "out") == dataclasses.replace(PE, video=dataclasses.replace(PE.video, num_frames=2))
    model = harvest_jax.load(tmp_path / "out")
    frames = np.random.default_rng(0).integers(0, 256, (1, 2, 12, 12, 3), np.uint8)
    assert np.isfinite(model.keeping(0.5).encode_video(frames)).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("visual.blocks.0.attn.qkv.weight", "EVA-CLIP's g/14, or EVA-02's E/14"),
        ("visual.trunk.blocks.0.attn.qkv.weight", "PE-Core as its .pt file"),
        ("visual.attn_pool.query", "attention pooling of another kind"),
    ],
)
def test_other_towers_with_these_parts_are_refused_by_name(name, message, tmp_path):
    save_file(arrays_of(of_family(OPENAI)) | {name: np.zeros((2, 3), np.float32)}, tmp_path / "x.safetensors")
    family, tensors = recognised(open_checkpoint(tmp_path / "x.safetensors"))
    with pytest.raises(DataError, match=message):
        family.architecture(tensors, Overrides(activation="gelu"))
