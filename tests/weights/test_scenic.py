"""Scenic's trees: its CLIP against a plain Linen model of that description, layer by layer; its ViViT refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization, traverse_util

from harvest_jax.errors import DataError
from harvest_jax.input.patches import patchify
from harvest_jax.model.config import HarvestConfig, TextConfig, VideoConfig
from harvest_jax.model.harvest import Harvest, normalise
from harvest_jax.weights.export_model import export_model
from harvest_jax.weights.families.family import Overrides
from harvest_jax.weights.families.recognise import family_of
from harvest_jax.weights.families.scenic import SCENIC, SCENIC_UNDERSCORE
from harvest_jax.weights.files.tensors import Tensors, TensorSpec
from harvest_jax.weights.folder import load_model, save_model
from harvest_jax.weights.import_checkpoint import import_checkpoint
from harvest_jax.weights.translate import to_family, to_native
from tests.helpers.scenic_clip import ScenicClip

TINY = HarvestConfig(
    name="ViT-24x2/4@12",
    video=VideoConfig(image_size=12, patch_size=4, num_frames=1, width=24, layers=2, heads=3, embed_dim=10),
    text=TextConfig(vocab_size=60, context_length=9, width=16, layers=3, heads=2, embed_dim=10),
    decoder=None,
)


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def tensors_of(arrays):
    entries = {name: TensorSpec(np.shape(array), np.dtype(array.dtype)) for name, array in arrays.items()}
    return Tensors("in memory", "here", entries, arrays.__getitem__)


@functools.cache
def shapes_of(joint):
    images, ids = jnp.zeros((1, 12, 12, 3)), jnp.ones((1, TINY.text.context_length), jnp.int32)
    return jax.eval_shape(ScenicClip(TINY, joint).init, jax.random.key(0), images, ids)["params"]


def random_tree(joint):
    """A tree of Scenic's with random numbers for every parameter, biases and norms too."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes_of(joint))


@pytest.fixture(scope="module")
def forward():
    return jax.jit(lambda tree, images, ids: ScenicClip(TINY).apply({"params": tree}, images, ids))


@pytest.fixture(scope="module")
def our_forward():
    model = Harvest(TINY)

    def embed(params, images, ids):
        patches = patchify(images[:, None], TINY.video.patch_size)
        positions = jnp.broadcast_to(jnp.arange(patches.shape[1]), patches.shape[:2])
        video = model.encode_video(params, patches, positions)["embedding"]
        return video, model.encode_text(params, ids)["embedding"]

    return jax.jit(embed)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (4, 12, 12, 3), np.uint8)
    ids = rng.integers(1, 58, (4, 9)).astype(np.int32)
    for row, end in enumerate((8, 3, 5, 1)):
        ids[row, end], ids[row, end + 1 :] = 59, 0  # the end token is the largest, then padding
    return images, ids


def normalised(images):
    flattened = images.reshape(len(images), 1, -1)
    return np.asarray(normalise(jnp.asarray(flattened), TINY.preprocessing)).reshape(images.shape)


def unit(x):
    return np.asarray(x) / np.linalg.norm(x, axis=1, keepdims=True)


def ours_of(tree, family=SCENIC):
    converted = to_native(tensors_of(flat(tree)), family, TINY)
    return traverse_util.unflatten_dict({name: converted.read(name) for name in converted.entries}, sep="/")


@pytest.mark.parametrize(("joint", "family"), [(".", SCENIC), ("_", SCENIC_UNDERSCORE)])
def test_names_shapes_and_architecture_are_scenics(joint, family):
    theirs = tensors_of(flat(random_tree(joint)))
    assert family_of(theirs) is family
    assert family.architecture(theirs, Overrides()) == TINY
    ours = to_native(theirs, family, TINY)
    assert to_family(ours, family, TINY).entries == theirs.entries


@pytest.mark.parametrize(("joint", "family"), [(".", SCENIC), ("_", SCENIC_UNDERSCORE)])
def test_both_directions_are_exact(joint, family):
    tree = flat(random_tree(joint))
    ours = to_native(tensors_of(tree), family, TINY)
    assert not ours.read("video/temporal_embedding").any()
    back = to_family(ours, family, TINY)
    for name, array in tree.items():
        np.testing.assert_array_equal(back.read(name), array, err_msg=name)
    again = to_native(back, family, TINY)
    for name in ours.entries:
        np.testing.assert_array_equal(again.read(name), ours.read(name), err_msg=name)


def test_the_towers_compute_what_scenics_do(forward, our_forward, batch):
    tree = random_tree(".")
    images, ids = batch
    theirs = forward(tree, normalised(images), ids)
    ours = our_forward(ours_of(tree), images, ids)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(unit(a), unit(b), atol=1e-5, rtol=0)
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max(), rtol=0)


def test_their_mask_of_token_0_counts_only_inside_a_caption(forward, our_forward, batch):
    tree = random_tree(".")
    images, ids = batch
    params = ours_of(tree)
    inside = ids.copy()
    inside[0, 4] = 0  # "!" before "("
    theirs, ours = forward(tree, normalised(images), inside)[1], our_forward(params, images, inside)[1]
    assert np.abs(unit(theirs[:1]) - unit(ours[:1])).max() > 1e-3
    np.testing.assert_allclose(unit(theirs[1:]), unit(ours[1:]), atol=1e-5, rtol=0)
    other = ids.copy()
    other[2, 6:] = 7  # another padding, after the end token
    np.testing.assert_allclose(our_forward(params, images, other)[1], our_forward(params, images, ids)[1], atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # it uses flax's SelfAttention
def test_scenics_own_module_takes_the_tree_and_agrees(our_forward, batch):
    """Only where google-research/scenic is installed (requirements_scenic.txt); elsewhere a model stands in for it."""
    layers = pytest.importorskip("scenic.projects.baselines.clip.layers", exc_type=ImportError)
    video, text = TINY.video, TINY.text
    model = layers.CLIP(
        vocab_size=text.vocab_size,
        embed_dim=video.embed_dim,
        text_features=text.width,
        text_num_layers=text.layers,
        text_num_heads=text.heads,
        vision_features=video.width,
        vision_num_layers=video.layers,
        vision_head_dim=video.width // video.heads,
        vision_patch_size=video.patch_size,
    )
    tree = random_tree(".")
    images, ids = batch
    found = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(images.shape), ids)["params"]
    assert jax.tree.map(lambda leaf: leaf.shape, dict(found)) == jax.tree.map(np.shape, tree)
    theirs = jax.jit(model.apply)({"params": tree}, normalised(images), ids)
    for a, b in zip(our_forward(ours_of(tree), images, ids), theirs, strict=True):
        np.testing.assert_allclose(unit(a), b, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["visual/transformer/resblocks.1/attn/key/bias", "text/ln_final/scale", "logit_scale"])
def test_a_missing_or_extra_leaf_is_named(name):
    arrays = flat(random_tree("."))
    del arrays[name]
    with pytest.raises(DataError, match=f"missing: {name}"):
        to_native(tensors_of(arrays), SCENIC, TINY)
    with pytest.raises(DataError, match=r"no part of the model uses: visual/head/kernel"):
        to_native(tensors_of(arrays | {"visual/head/kernel": np.zeros(3, np.float32)}), SCENIC, TINY)


def test_a_resnet_is_refused():
    arrays = flat(random_tree("."))
    del arrays["visual/class_embedding"]
    with pytest.raises(DataError, match="ResNet"):
        SCENIC.architecture(tensors_of(arrays | {"visual/layer1/0/conv1/kernel": np.zeros((1, 1, 4, 4))}), Overrides())


# Files


def written(tree, folder, form):
    if form == "npz":
        path = folder / "clip.npz"
        np.savez(path, **flat(tree))
    else:
        path = folder / "checkpoint"
        state = {"step": 7, "mu": jax.tree.map(np.ones_like, tree)}
        forms = {
            "tree": tree,
            "variables": {"params": tree},
            "TrainState": {"global_step": 7, "params": tree, "opt_state": {"0": state}, "rng": np.zeros(2, np.uint32)},
            "flax.optim": {"optimizer": {"target": {"params": tree}, "state": {"param_states": state}}},
        }
        path.write_bytes(serialization.msgpack_serialize(forms[form]))
    return path


@pytest.mark.parametrize("form", ["npz", "tree", "variables", "TrainState", "flax.optim"])
def test_files_import(tmp_path, form):
    tree = random_tree(".")
    summary = import_checkpoint(written(tree, tmp_path, form), tmp_path / "imported")
    assert summary["family"] == "Scenic CLIP"
    config, params = load_model(tmp_path / "imported")
    assert config == TINY
    jax.tree.map(np.testing.assert_array_equal, params, ours_of(tree))


def test_an_export_is_the_tree_again(tmp_path):
    tree = random_tree(".")
    save_model(tmp_path / "model", TINY, ours_of(tree), {})
    export_model(tmp_path / "model", "scenic", tmp_path / "clip.msgpack")
    restored = serialization.msgpack_restore((tmp_path / "clip.msgpack").read_bytes())
    assert restored.keys() == {"params"}
    jax.tree.map(np.testing.assert_array_equal, restored["params"], tree)


# ViViT


def vivit(tubelet=2, factorised=False, prefix=""):
    """The leaves by which ViViT is known, with the names and axes of `scenic/projects/vivit/model.py`."""
    arrays = {
        "embedding/kernel": np.zeros((tubelet, 4, 4, 3, 8), np.float32),
        "embedding/bias": np.zeros(8, np.float32),
        "output_projection/kernel": np.zeros((8, 5), np.float32),
    }
    for tower in ("SpatialTransformer", "TemporalTransformer") if factorised else ("Transformer",):
        arrays[f"{tower}/posembed_input/pos_embedding"] = np.zeros((1, 19, 8), np.float32)
        arrays[f"{tower}/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel"] = np.zeros((8, 2, 4), np.float32)
    return {prefix + name: array for name, array in arrays.items()}


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        (vivit(), "patches of 2 frames with a bias; one table of positions for all tokens"),
        (vivit(factorised=True), "one transformer over space and another over time"),
        (vivit(prefix="optimizer/target/"), "GELU by its tanh formula"),
    ],
)
def test_vivit_is_recognised_and_refused_in_one_line(tmp_path, arrays, reason):
    path = tmp_path / "vivit"
    path.write_bytes(serialization.msgpack_serialize(traverse_util.unflatten_dict(arrays, sep="/")))
    with pytest.raises(DataError, match=reason) as error:
        import_checkpoint(path, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
