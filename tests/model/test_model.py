"""The towers: against a plain numpy CLIP, and the invariants that dropping and masking rest on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harvest_jax.input.patches import patchify
from harvest_jax.model import cpu_attention
from harvest_jax.model.blocks import UNROLLED, attend
from harvest_jax.model.config import CLIP_MEAN, CLIP_STD, HarvestConfig, Preprocessing, harvest_config
from harvest_jax.model.harvest import Harvest, l2_normalise, normalise
from harvest_jax.model.video_tower import temporal_ramp
from tests.helpers.small_model import FRAMES, SMALL


class Compiled:
    """The model's functions under jit: compiled whole, which is much quicker than operation by operation."""

    def __init__(self, config=SMALL, **options):
        model = Harvest(config, **options)
        self.init, self.encode_video = model.init, jax.jit(model.encode_video)
        self.encode_text, self.decode = jax.jit(model.encode_text), jax.jit(model.decode)


@pytest.fixture(scope="module")
def model():
    return Compiled()


@pytest.fixture(scope="module")
def params(model):
    """Random everywhere, so that a bias or a norm that is not used shows."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    return tree.unflatten([rng.normal(0, 0.3, leaf.shape).astype(np.float32) for leaf in leaves])


def clips(count=2, frames=FRAMES):
    video = np.random.default_rng(1).integers(0, 256, (count, frames, 8, 8, 3), dtype=np.uint8)
    patches = patchify(video, 4)
    positions = np.tile(np.arange(patches.shape[1], dtype=np.int32), (count, 1))
    return patches, positions


# An independent CLIP transformer, in numpy, one layer after the other.


def np_norm(x, p):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * p["scale"] + p["bias"]


def np_softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def np_block(x, p, heads, causal):
    length, width = x.shape
    h = np_norm(x, p["ln_1"])
    q, k, v = (
        h @ p["attn"]["qkv"]["kernel"][:, i].reshape(width, -1) + p["attn"]["qkv"]["bias"][i].ravel() for i in range(3)
    )
    out = np.zeros_like(h)
    d = width // heads
    for head in range(heads):
        part = slice(head * d, (head + 1) * d)
        scores = q[:, part] @ k[:, part].T / np.sqrt(d)
        if causal:
            scores = np.where(np.tril(np.ones((length, length), bool)), scores, -np.inf)
        out[:, part] = np_softmax(scores) @ v[:, part]
    x = x + out @ p["attn"]["out"]["kernel"].reshape(width, width) + p["attn"]["out"]["bias"]
    h = np_norm(x, p["ln_2"]) @ p["mlp"]["c_fc"]["kernel"] + p["mlp"]["c_fc"]["bias"]
    h = h / (1 + np.exp(-1.702 * h))
    return x + h @ p["mlp"]["c_proj"]["kernel"] + p["mlp"]["c_proj"]["bias"]


def np_transformer(x, p, layers, heads, causal):
    for layer in range(layers):
        x = np_block(x, jax.tree.map(lambda leaf: np.asarray(leaf, np.float64)[layer], p["blocks"]), heads, causal)  # noqa: B023
    return x


def np_embedded(patches, keep, p):
    """The tokens that go into the blocks: the class token, and the kept patches with their places."""
    pixels = np.asarray(patches)[keep].reshape(len(keep), 16, 3) / 255.0
    pixels = ((pixels - np.array(CLIP_MEAN)) / np.array(CLIP_STD)).reshape(len(keep), 48)
    x = pixels @ p["patch_embedding"]["kernel"]
    x = x + p["spatial_embedding"][1 + keep % 4] + p["temporal_embedding"][keep // 4]
    return np.concatenate([(p["class_embedding"] + p["spatial_embedding"][0])[None], x])


def test_video_tower_equals_a_plain_numpy_clip(model, params):
    patches, positions = clips()
    keep = np.array([0, 3, 5, 10])
    out = model.encode_video(params, patches[:, keep], positions[:, keep])
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["video"])
    for row in range(2):
        x = np_embedded(patches[row], keep, p)
        x = np_transformer(np_norm(x, p["ln_pre"]), params["video"]["transformer"], 2, 2, causal=False)
        np.testing.assert_allclose(out["tokens"][row], x, rtol=2e-4, atol=2e-4)
        embedding = np_norm(x[0], p["ln_post"]) @ p["proj"]["kernel"]
        np.testing.assert_allclose(out["embedding"][row], embedding, rtol=2e-4, atol=2e-4)


def test_the_class_tokens_attention_is_that_of_a_plain_numpy_clip(params):
    patches, positions = clips()
    keep = np.array([0, 3, 5, 10])
    attention = jax.jit(Harvest(SMALL).class_attention)(params, patches[:, keep], positions[:, keep])
    assert (attention.shape, attention.dtype) == ((2, 2, 4), np.float32)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["video"])
    for row in range(2):
        x = np_embedded(patches[row], keep, p)
        x = np_norm(x, p["ln_pre"])
        for layer in range(2):
            block = jax.tree.map(lambda leaf: leaf[layer], p["transformer"]["blocks"])  # noqa: B023
            h, qkv = np_norm(x, block["ln_1"]), block["attn"]["qkv"]
            q, k = (np.einsum("nw,whd->hnd", h, qkv["kernel"][:, i]) + qkv["bias"][i][:, None] for i in range(2))
            weights = np_softmax(np.einsum("hd,hnd->hn", q[:, 0], k) / np.sqrt(q.shape[-1]))
            np.testing.assert_allclose(attention[row, layer], weights.mean(0)[1:], rtol=2e-4, atol=2e-5)
            x = np_block(x, block, 2, causal=False)


def test_attention_weights_are_computed_only_where_they_are_asked_for(params):
    products = [
        str(jax.make_jaxpr(function)(params, *clips())).count("dot_general")
        for function in (Harvest(SMALL).encode_video, Harvest(SMALL).class_attention)
    ]
    assert products[1] == products[0] + 1  # in the one block that the loop over the layers has


def test_text_tower_equals_a_plain_numpy_clip(model, params):
    ids = np.array([[38, 5, 7, 39, 0, 0], [38, 5, 9, 11, 13, 39]], np.int32)
    out = model.encode_text(params, ids)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["text"])
    for row, end in ((0, 3), (1, 5)):
        x = p["token_embedding"]["embedding"][ids[row]] + p["positional_embedding"][:6]
        x = np_norm(np_transformer(x, params["text"]["transformer"], 2, 2, causal=True), p["ln_final"])
        np.testing.assert_allclose(out["tokens"][row], x, rtol=2e-4, atol=2e-4)
        np.testing.assert_allclose(out["embedding"][row], x[end] @ p["text_projection"]["kernel"], rtol=2e-4, atol=2e-4)


def test_what_follows_the_end_token_changes_nothing(model, params):
    short = np.array([[38, 5, 7, 39]], np.int32)
    long = np.array([[38, 5, 7, 39, 0, 0, 0, 0]], np.int32)
    a, b = model.encode_text(params, short), model.encode_text(params, long)
    np.testing.assert_allclose(a["embedding"], b["embedding"], rtol=1e-5, atol=1e-6)


def test_masked_words_are_replaced_and_hidden(model, params):
    masked = np.array([[False, True, False, False]])
    one = model.encode_text(params, np.array([[38, 5, 7, 39]], np.int32), masked)
    other = model.encode_text(params, np.array([[38, 21, 7, 39]], np.int32), masked)
    np.testing.assert_array_equal(one["tokens"], other["tokens"])
    seen = model.encode_text(params, np.array([[38, 5, 7, 39]], np.int32))
    assert np.abs((np.asarray(seen["tokens"]) - np.asarray(one["tokens"]))[0, 1]).max() > 1e-3
    np.testing.assert_array_equal(
        seen["tokens"][0, 0], one["tokens"][0, 0]
    )  # causal: what stands before is not touched


def test_keeping_every_patch_in_any_order_is_the_whole_clip(model, params):
    patches, positions = clips()
    whole = model.encode_video(params, patches, positions)
    order = np.random.default_rng(0).permutation(patches.shape[1])
    shuffled = model.encode_video(params, patches[:, order], positions[:, order])
    np.testing.assert_allclose(whole["embedding"], shuffled["embedding"], rtol=1e-5, atol=1e-5)


def test_dropped_pixels_have_no_influence_and_places_have(model, params):
    patches, positions = clips()
    keep = np.array([1, 6, 11])
    base = model.encode_video(params, patches[:, keep], positions[:, keep])["embedding"]
    altered = patches.copy()
    altered[:, 0] = 255 - altered[:, 0]
    altered = altered[:, keep]
    np.testing.assert_array_equal(base, model.encode_video(params, altered, positions[:, keep])["embedding"])
    moved = model.encode_video(params, patches[:, keep], positions[:, np.array([1, 6, 10])])["embedding"]
    assert np.abs(np.asarray(base) - np.asarray(moved)).max() > 1e-3


def test_one_frame_with_a_zero_table_is_clip_whatever_the_clip_length(params):
    """An imported CLIP: the same parameters under num_frames=1 and under 3 frames with a temporal table of zeros."""
    image_config = HarvestConfig.from_dict(SMALL.to_dict() | {"video": SMALL.to_dict()["video"] | {"num_frames": 1}})
    patches, positions = clips(frames=1)
    video = dict(params["video"])
    as_image = params | {"video": video | {"temporal_embedding": jnp.zeros((1, 16))}}
    as_video = params | {"video": video | {"temporal_embedding": jnp.zeros((FRAMES, 16))}}
    np.testing.assert_array_equal(
        Compiled(image_config).encode_video(as_image, patches, positions)["embedding"],
        Compiled().encode_video(as_video, patches, positions)["embedding"],
    )


@pytest.mark.parametrize("frames", [1, 2, 8])
def test_the_ramp_is_centred_smooth_and_orders_the_frames(frames):
    table = np.asarray(temporal_ramp(frames, 16))
    np.testing.assert_allclose(table.mean(axis=0), 0, atol=1e-7)
    if frames > 1:
        assert (np.diff(np.abs(np.diff(table[:, 0]))) < 1).all()
        assert len(np.unique(np.sign(np.diff(table[:, 0])))) == 1  # the slowest wave runs one way


def test_decoder_at_slots_equals_decoder_everywhere(model, params):
    patches, positions = clips()
    memory = model.encode_video(params, patches, positions)["tokens"]
    tokens = model.encode_text(params, np.array([[38, 5, 7, 9, 39, 0]] * 2, np.int32))["tokens"]
    everywhere = model.decode(params, tokens, memory)
    slots = np.array([1, 3])
    np.testing.assert_allclose(
        np.asarray(everywhere)[:, slots],
        model.decode(params, np.asarray(tokens)[:, slots], memory),
        rtol=1e-5,
        atol=1e-5,
    )
    other = model.decode(params, tokens, np.asarray(memory)[::-1])
    assert np.abs(np.asarray(everywhere) - np.asarray(other)).max() > 1e-3  # it does look at the video


def test_bfloat16_computes_close_to_float32_with_float32_parameters(model, params):
    patches, positions = clips()
    half = Compiled(dtype=jnp.bfloat16).encode_video(params, patches, positions)
    full = model.encode_video(params, patches, positions)
    assert half["embedding"].dtype == jnp.float32
    assert half["tokens"].dtype == jnp.bfloat16
    cosine = np.sum(np.asarray(l2_normalise(half["embedding"])) * np.asarray(l2_normalise(full["embedding"])), axis=-1)
    assert cosine.min() > 0.999


@pytest.mark.parametrize(("queries", "keys", "causal"), [(6, 6, False), (7, 7, False), (5, 8, False), (7, 7, True)])
def test_rows_added_for_cudnn_change_nothing(queries, keys, causal, monkeypatch):
    """cuDNN gets even lengths, with keys that are none left out; here XLA does its part."""
    random = np.random.default_rng(0)
    arrays = [jnp.asarray(random.normal(size=(2, n, 3, 8)), jnp.float32) for n in (queries, keys, keys)]
    one, seen = jax.nn.dot_product_attention, []

    def cudnn(query, key, value, implementation, **options):
        if implementation == "cudnn":
            seen.append((query.shape[1], key.shape[1], value.shape[1]))
        return one(query, key, value, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", cudnn)

    def output_and_gradient(implementation):
        total = lambda *args: jnp.sin(attend(*args, implementation, causal)).sum()  # noqa: E731
        return attend(*arrays, implementation, causal), *jax.grad(total, (0, 1, 2))(*arrays)

    for a, b in zip(output_and_gradient("cudnn"), output_and_gradient("xla"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert seen == 2 * [(queries + queries % 2, keys + keys % 2, keys + keys % 2)]


@pytest.mark.parametrize(("queries", "keys", "causal"), [(6, 6, False), (5, 8, False), (7, 7, True)])
@pytest.mark.parametrize("blocks", [1, 3, 18])
def test_attention_in_blocks_is_attention(queries, keys, causal, blocks, monkeypatch):
    random = np.random.default_rng(0)
    arrays = [jnp.asarray(random.normal(size=(6, n, 3, 8)), jnp.float32) for n in (queries, keys, keys)]
    monkeypatch.setattr(cpu_attention, "SCORES", 18 // blocks * 4 * queries * keys)

    def output_and_gradient(implementation):
        total = lambda *args: jnp.sin(attend(*args, implementation, causal)).sum()  # noqa: E731
        compiled = jax.jit(jax.grad(total, (0, 1, 2))).lower(*arrays).compile()
        assert ("while" in compiled.as_text()) == (implementation == "cpu" and blocks > 1)
        return attend(*arrays, implementation, causal), *compiled(*arrays)

    for a, b in zip(output_and_gradient("cpu"), output_and_gradient("xla"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    halves = [array.astype(jnp.bfloat16) for array in arrays]
    a, b = (np.asarray(attend(*halves, one, causal), np.float32) for one in ("cpu", "xla"))
    np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("remat", ["none", "dots"])
def test_unrolled_layers_change_no_gradient(remat):
    """A program with all layers, and one with a loop over them: the accelerators' and the CPU's."""
    config = dataclasses.replace(SMALL, video=dataclasses.replace(SMALL.video, layers=UNROLLED + 1))
    params = jax.jit(Harvest(config).init)(jax.random.key(0))
    patches, positions = clips()

    def gradient(unroll):
        model = Harvest(config, remat=remat, unroll=unroll)
        loss = lambda p, *batch: jnp.sin(model.encode_video(p, *batch)["embedding"]).sum()  # noqa: E731
        compiled = jax.jit(jax.grad(loss)).lower(params, patches, positions).compile()
        return compiled(params, patches, positions)["video"], "while" in compiled.as_text()

    (unrolled, has_loop), (looped, has_one) = gradient(True), gradient(False)
    assert (has_loop, has_one) == (False, True)
    for a, b in zip(jax.tree.leaves(unrolled), jax.tree.leaves(looped), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_remat_changes_no_gradient(params):
    patches, positions = clips()

    def gradient(remat):
        model = Harvest(SMALL, remat=remat)
        loss = lambda p, *batch: model.encode_video(p, *batch)["embedding"].sum()  # noqa: E731
        return jax.jit(jax.grad(loss))(params, patches, positions)["video"]

    everything = jax.tree.leaves(gradient("none"))
    for policy in ("dots", "full"):
        for a, b in zip(everything, jax.tree.leaves(gradient(policy)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_pixels_are_normalised_by_channel():
    patches = jnp.asarray(np.tile(np.array([0, 128, 255], np.uint8), 16)[None, None])
    expected = (np.array([0, 128 / 255, 1.0]) - CLIP_MEAN) / CLIP_STD
    np.testing.assert_allclose(
        np.asarray(normalise(patches, Preprocessing()))[0, 0].reshape(16, 3), np.tile(expected, (16, 1)), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("size", "millions"),  # published parameter counts of CLIP: the image tower with its projection
    [("B/32", 87.85), ("B/16", 86.19), ("L/14", 303.97), ("L/14@336", 304.29), ("H/14", 632.08)],
)
def test_named_sizes_have_clips_parameter_counts(size, millions):
    shapes = jax.eval_shape(Harvest(harvest_config(size, num_frames=1, decoder_layers=0)).init, jax.random.key(0))
    image = shapes["video"] | {"temporal_embedding": jax.ShapeDtypeStruct((0,), jnp.float32)}
    count = sum(leaf.size for leaf in jax.tree.leaves(image))
    assert count / 1e6 == pytest.approx(millions, abs=0.01)


def test_config_survives_json():
    assert HarvestConfig.from_dict(SMALL.to_dict()) == SMALL
    no_decoder = harvest_config("demo", 1, 0)
    assert HarvestConfig.from_dict(no_decoder.to_dict()) == no_decoder
