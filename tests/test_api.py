"""`harvest_jax.load` and what a model does, on real video files."""

import csv
import dataclasses
import functools
import json
import subprocess
import sys
import tracemalloc
import weakref

import jax
import numpy as np
import pytest

import harvest_jax
from data_pipeline.decode.clip import decode_clip
from data_pipeline.decode.spec import DecodeSpec
from harvest_jax.demo.image_clip import SHIPPED
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.input.patches import keep_positions, patchify
from harvest_jax.model.batches import text_lengths
from harvest_jax.model.config import Preprocessing
from harvest_jax.model.harvest import Harvest
from harvest_jax.model.inference import text_embedding
from harvest_jax.pixels.square import fit
from harvest_jax.weights.folder import load_model, save_model
from tests.helpers.video_files import numbered_frames, write_video


@pytest.fixture(scope="module")
def image_model():
    return harvest_jax.load(SHIPPED)


@pytest.fixture(scope="module")
def video_model(tmp_path_factory):
    """The packaged towers as a video model with a decoder of random weights."""
    from harvest_jax.model.config import harvest_config
    from harvest_jax.model.harvest import Harvest

    config = harvest_config("demo", num_frames=4, decoder_layers=1)
    _, image = load_model(SHIPPED)
    fresh = jax.tree.map(np.asarray, jax.jit(Harvest(config).init, static_argnums=1)(jax.random.key(1), "ramp"))
    video = image["video"] | {"temporal_embedding": fresh["video"]["temporal_embedding"]}
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, config, fresh | {"video": video, "text": image["text"]}, {})
    return harvest_jax.load(folder)


@pytest.fixture(scope="module")
def files(world_clips):
    with world_clips.open() as file:
        return [world_clips.parent / row["video"] for row in csv.DictReader(file)][:5]


def test_embeddings_are_unit_float32_rows(video_model, files):
    video = video_model.encode_video(files)
    text = video_model.encode_text(["a red heart grows", "a blue bar", ""])
    for rows, count in ((video, 5), (text, 3)):
        assert rows.dtype == np.float32
        assert rows.shape == (count, 64)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    assert (video @ text.T).shape == (5, 3)


def test_a_clip_is_the_same_alone_in_company_and_as_an_array(video_model, files):
    together = video_model.encode_video(files)
    np.testing.assert_allclose(video_model.encode_video(files[2:3])[0], together[2], atol=1e-5)
    np.testing.assert_allclose(video_model.encode_video(video_model.prepare(files)), together, atol=1e-6)


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_files_are_shown_as_in_the_models_training(video_model, tmp_path, resize):
    """The workers make the squares, of whole pictures: what comes here equals Pillow's work on them."""
    path = write_video(tmp_path / "a.mp4", numbered_frames(8, 150, 202))
    config = dataclasses.replace(video_model.config, preprocessing=Preprocessing(resize=resize))
    model = harvest_jax.Model(config, video_model.params, "a")
    whole = decode_clip(path, DecodeSpec(num_frames=4)).frames
    assert whole.shape == (4, 150, 202, 3)
    expected = np.stack([fit(frame, 64, resize) for frame in whole])
    assert np.array_equal(model.prepare([path])[0], expected)
    assert np.array_equal(model.prepare(whole[None])[0], expected)


def test_more_clips_than_a_batch(video_model):
    clips = np.random.default_rng(0).integers(0, 256, (19, 4, 64, 64, 3), dtype=np.uint8)
    whole = video_model.encode_clips(clips)
    assert whole.shape == (19, 64)
    np.testing.assert_allclose(whole[17:], video_model.encode_clips(clips[17:]), atol=1e-5)
    assert video_model.encode_video([]).shape == (0, 64)


def test_one_item_is_one_row(video_model, files):
    together = video_model.encode_video(files[:1])
    assert video_model.encode_video(files[0]).shape == video_model.encode_text("a red heart grows").shape == (1, 64)
    for one in (files[0], str(files[0]), video_model.prepare(files[0])[0]):
        np.testing.assert_allclose(video_model.encode_video(one), together, atol=1e-6)
    words = ["a red heart grows", "a blue bar"]
    np.testing.assert_allclose(video_model.encode_text(words[0]), video_model.encode_text(words)[:1], atol=1e-5)


def test_sequences_generators_and_arrays_of_other_sizes(video_model, files):
    together = video_model.encode_video(files[:3])
    clips = video_model.prepare(files[:3])
    larger = [clips[0], clips[1].repeat(2, axis=1).repeat(2, axis=2), clips[2].repeat(2, axis=0)]
    for given in (
        tuple(files[:3]),
        (str(path) for path in files[:3]),
        np.array([str(path) for path in files[:3]]),
        jax.numpy.asarray(clips),
        list(clips),
        [jax.numpy.asarray(clip) for clip in clips],
    ):
        np.testing.assert_allclose(video_model.encode_video(given), together, atol=1e-5)
    mixed = video_model.encode_video(larger)
    np.testing.assert_allclose(mixed[[0, 2]], together[[0, 2]], atol=1e-5)
    assert mixed[1] @ together[1] > 0.9  # enlarged and resized again
    assert video_model.encode_text(word for word in ("red", "blue")).shape == (2, 64)
    for none in ([], (), iter(()), np.zeros((0, 4, 64, 64, 3), np.uint8)):
        assert video_model.encode_video(none).shape == (0, 64)
    assert video_model.encode_text([]).shape == (0, 64)


WRONG = """
import json, sys
import numpy as np
import harvest_jax
from harvest_jax.errors import HarvestError

model = harvest_jax.load(sys.argv[1])
clip, path = np.zeros((4, 8, 8, 3), np.uint8), "a.mp4"
videos = {
    "None": None, "bytes": b"a.mp4", "number": 3, "dict": {path: clip}, "set": {path},
    "floats": np.zeros((1, 4, 8, 8, 3)), "picture": clip[0], "channels": clip[..., :1], "row": np.zeros(3, np.uint8),
    "no frames": clip[:0], "no frames in a batch": np.zeros((2, 0, 8, 8, 3), np.uint8), "no width": clip[:, :, :0],
    "None inside": [None], "bytes inside": [b"a.mp4"], "floats inside": [clip, clip / 2], "nested": [[clip]],
    "mixed": [clip, path],
}
texts = {"None": None, "bytes": b"red", "number": 3, "number inside": ["red", 3], "bytes inside": [b"red"]}
clips = {"None": None, "one clip": clip, "size": clip[None], "floats": np.zeros((1, 8, 64, 64, 3))}
calls = {("encode_video", name): (model.encode_video, value) for name, value in videos.items()}
calls |= {("encode_text", name): (model.encode_text, value) for name, value in texts.items()}
calls |= {("encode_clips", name): (model.encode_clips, value) for name, value in clips.items()}
calls |= {("load", str(value)): (harvest_jax.load, value) for value in (None, b"folder", 3)}
for device in ("tpu", "cpu:99", "cpu:x", "cpu:", "nonsense", 0):
    calls["device", str(device)] = (lambda value: harvest_jax.load(sys.argv[1], device=value), device)
said = {}
for (call, name), (function, value) in calls.items():
    try:
        said[f"{call}: {name}"] = repr(function(value))
    except HarvestError as error:
        said[f"{call}: {name}"] = [type(error).__name__, str(error)]
    except Exception as error:
        said[f"{call}: {name}"] = repr(error)
print(json.dumps(said))
"""


def test_wrong_arguments_get_one_line_that_names_them():
    """In a process of its own: here types are checked at run time, which a user's process does not do."""
    done = subprocess.run([sys.executable, "-c", WRONG, SHIPPED], capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert len(said) == 35
    for call, answer in said.items():
        assert isinstance(answer, list), f"{call}: {answer}"
        assert "\n" not in answer[1]
        assert answer[0] == ("ConfigError" if call.startswith("device") else "DataError")
    for call, words in {
        "encode_video: None": "not None",
        "encode_video: bytes": "not bytes",
        "encode_video: floats": "clips as uint8 [B, T, H, W, 3], or a sequence of paths or of clips, not float64",
        "encode_video: no frames": "videos[0] is empty: uint8 [0, 8, 8, 3]",
        "encode_video: floats inside": "videos[1] must be a path (text) or a clip (uint8 [T, H, W, 3]), not float64",
        "encode_video: mixed": "videos[1] is str: give only paths or only arrays",
        "encode_text: number inside": "texts[1] must be a string, not int",
        "encode_clips: size": "uint8 [B, T, 64, 64, 3], not uint8 [1, 4, 8, 8, 3]",
        "load: None": "a model folder is given as a path, not None",
        "device: cpu:99": "'cpu:99' is not on this machine, which has cpu:0",
    }.items():
        assert words in said[call][1], said[call]


def test_arrays_are_embedded_as_they_come(video_model):
    """Of 80 clips from a generator no more are in memory at once than two batches."""
    made, most = [], 0

    def clips():
        nonlocal most
        for number in range(80):
            clip = np.full((4, 64, 64, 3), number, np.uint8)
            made.append(weakref.ref(clip))
            most = max(most, sum(reference() is not None for reference in made))
            yield clip

    assert video_model.encode_video(clips()).shape == (80, 64)
    assert most <= 32


def test_files_are_embedded_as_they_are_decoded(video_model, files):
    """Memory does not grow with the number of files."""
    video_model.encode_video(files[:1] * 20)  # compiles
    peaks = []
    for count in (48, 400):
        tracemalloc.start()
        assert video_model.encode_video(files[:1] * count).shape == (count, 64)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    clip = 4 * 64 * 64 * 3
    assert peaks[1] - peaks[0] < 100 * clip  # 352 more clips, and what the workers decode ahead


def test_it_computes_on_the_device_asked_for(video_model, files):
    last = jax.devices("cpu")[-1]
    clips, ids = video_model.prepare(files[:1]), np.ones((1, 4), np.int32)
    for device in (last, f"cpu:{len(jax.devices('cpu')) - 1}"):
        model = harvest_jax.load(video_model.name, device=device)
        assert {leaf.device for leaf in jax.tree.leaves(model.params)} == {last}
        np.testing.assert_allclose(model.encode_video(clips), video_model.encode_video(clips), atol=1e-5)
        assert model.answer_logits(clips, ids, np.zeros(1, np.int32)).shape == (1, model.tokenizer.vocab_size)
    assert {leaf.device for leaf in jax.tree.leaves(harvest_jax.load(SHIPPED, "cpu").params)} == {jax.devices("cpu")[0]}


def test_short_texts_are_computed_short_with_the_numbers_of_the_whole_table(image_model):
    words = "a red triangle moves left"  # 15 tokens in its 4,096 ids
    texts = ["blue", words, f"{words} and {words}", words, "x y z " * 30]
    config, ids = image_model.config, image_model.tokenizer(texts, image_model.config.text.context_length)
    assert list(text_lengths(ids)) == [16, 16, 32, 16, 32]
    whole = jax.jit(functools.partial(text_embedding, Harvest(config)))(image_model.params, ids)
    found = image_model.encode_text(texts)
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found[1], found[3])
    shorts = texts[:2] + texts[3:4]
    np.testing.assert_array_equal(image_model.encode_text(shorts), found[[0, 1, 3]])  # whatever is beside them


def test_several_devices_change_no_bit(video_model):
    several = video_model.over(jax.local_devices()[:3])
    size = video_model.config.video.image_size
    rows = 2 * 3 * 16 + 21  # two full calls, and a part that one device could not take
    clips = np.random.default_rng(0).integers(0, 256, (rows, 4, size, size, 3), np.uint8)
    alone = np.concatenate([video_model.encode_clips(clips[i : i + 16]) for i in range(0, 112, 16)])
    np.testing.assert_array_equal(several.encode_clips(clips)[:112], alone)
    np.testing.assert_array_equal(several.encode_clips(clips[:5]), video_model.encode_clips(clips[:5]))
    texts = [f"text {number}" for number in range(48)]
    np.testing.assert_array_equal(several.encode_text(texts), video_model.encode_text(texts))
    ids = np.zeros((17, 8), np.int32)
    np.testing.assert_array_equal(
        several.answer_logits(clips[:17], ids, ids[:, 0])[:16],
        video_model.answer_logits(clips[:16], ids[:16], ids[:16, 0]),
    )
    assert several.digest == video_model.digest
    assert {d for leaf in jax.tree.leaves(several.params) for d in leaf.devices()} == set(jax.local_devices()[:3])


def test_kept_patches_alone_decide_and_the_seed_draws_them(video_model):
    size, patch = video_model.config.video.image_size, video_model.config.video.patch_size
    clips = np.random.default_rng(0).integers(0, 256, (2, 4, size, size, 3), np.uint8)
    cells = keep_positions(np.random.default_rng(3), 4, (size // patch) ** 2, 0.25)
    blank = np.zeros_like(patchify(clips, patch))
    blank[:, cells] = patchify(clips, patch)[:, cells]
    grid = (2, 4, size // patch, size // patch, patch, patch, 3)
    blanked = blank.reshape(grid).transpose(0, 1, 2, 4, 3, 5, 6).reshape(clips.shape)
    assert (blanked != clips).mean() > 0.7
    quarter = video_model.keeping(0.25, seed=3)
    assert video_model.keeping(0.25, seed=3) is quarter
    np.testing.assert_array_equal(quarter.encode_clips(blanked), quarter.encode_clips(clips))
    kept, whole = quarter.encode_clips(clips), video_model.encode_clips(clips)
    assert np.abs(kept - whole).max() > 1e-3
    assert np.abs(kept - video_model.keeping(0.25, seed=4).encode_clips(clips)).max() > 1e-3
    several = quarter.over(jax.local_devices()[:2])
    np.testing.assert_array_equal(several.encode_clips(np.tile(clips, (8, 1, 1, 1, 1)))[:2], kept)
    ids = np.zeros((2, 8), np.int32)
    answers = [model.answer_logits(blanked, ids, ids[:, 0]) for model in (quarter, video_model)]
    np.testing.assert_array_equal(answers[0], quarter.answer_logits(clips, ids, ids[:, 0]))
    assert np.abs(answers[0] - answers[1]).max() > 1e-3
    np.testing.assert_array_equal(quarter.keeping(1.0).encode_clips(clips), whole)
    for ratio in (0.0, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="must be above 0, and 1 at most"):
            video_model.keeping(ratio)


def test_an_image_model_keeps_the_same_patches_of_each_frame(image_model):
    size = image_model.config.video.image_size
    still = np.random.default_rng(0).integers(0, 256, (1, 1, size, size, 3), np.uint8)
    half = image_model.keeping(0.5)
    np.testing.assert_allclose(half.encode_clips(np.repeat(still, 3, 1)), half.encode_clips(still), atol=1e-6)


def test_the_digest_is_of_description_and_weights(video_model, image_model, tmp_path):
    config, params = video_model.config, jax.tree.map(np.asarray, video_model.params)
    save_model(tmp_path / "elsewhere", config, params, {"made_by": "another"})
    assert harvest_jax.load(tmp_path / "elsewhere").digest == video_model.digest
    changed = params | {"logit_scale": params["logit_scale"] + 1}
    others = [harvest_jax.Model(config, changed, "a"), image_model]
    for preprocessing in (Preprocessing(resize="squash"), Preprocessing(mean=(0.5, 0.5, 0.5))):
        others.append(harvest_jax.Model(dataclasses.replace(config, preprocessing=preprocessing), params, "a"))
    assert len({model.digest for model in [video_model, *others]}) == 5


def test_an_image_model_averages_its_frames_and_cannot_tell_their_order(image_model, files):
    clips = image_model.prepare(files)
    assert clips.shape[1] == 8
    forwards, backwards = image_model.encode_clips(clips), image_model.encode_clips(clips[:, ::-1])
    np.testing.assert_allclose(forwards, backwards, atol=1e-5)
    single = np.stack([image_model.encode_clips(clips[:, t : t + 1]) for t in range(8)]).mean(axis=0)
    np.testing.assert_allclose(forwards, single / np.linalg.norm(single, axis=1, keepdims=True), atol=1e-5)


def test_a_video_model_can_tell_their_order(video_model, files):
    clips = video_model.prepare(files)
    assert np.abs(video_model.encode_clips(clips) - video_model.encode_clips(clips[:, ::-1])).max() > 1e-3


def test_attention_is_of_each_layer_frame_and_patch(video_model, image_model, files):
    for model, sums in ((video_model, (2, 3, 4)), (image_model, (3, 4))):
        weights = model.attention(files[:2])
        assert (weights.shape, weights.dtype) == ((2, 3, model.num_frames, 8, 8), np.float32)
        total = weights.sum(axis=sums)  # less than 1 by the class token's weight on itself
        assert np.all((total > 0.3) & (total < 1))
        np.testing.assert_allclose(model.attention(files[1]), weights[1:], atol=1e-6)
        few = model.keeping(0.25, seed=3)
        looked_at = few.attention(files[0])[0]
        assert np.mean(looked_at > 0) == 0.25
        assert np.array_equal(looked_at[0] > 0, looked_at[2] > 0)
    assert video_model.attention([]).shape == (0, 3, 4, 8, 8)


def test_the_packaged_image_model_knows_its_words(image_model):
    """Marked stills it has not seen are matched with their captions."""
    from harvest_jax.demo.world import combinations, random_scene, render_still

    rng = np.random.default_rng(123)
    scenes = [random_scene(rng, *c) for c in combinations(held=False)]
    stills = np.stack([render_still(scene, 0.4, posed=True) for scene in scenes])[:, None]
    scores = image_model.encode_clips(stills) @ image_model.encode_text([scene.caption for scene in scenes]).T
    assert np.mean(scores.argmax(axis=1) == np.arange(len(scenes))) > 0.8


def test_answers_at_the_masked_slot(video_model, image_model, files):
    tokenizer = video_model.tokenizer
    ids = tokenizer(["a red heart grows"] * 2, 12)
    slot = np.array([2, 3], np.int32)
    clips = video_model.prepare(files[:2])
    logits = video_model.answer_logits(clips, ids, slot)
    assert logits.shape == (2, tokenizer.vocab_size)
    other = ids.copy()
    other[0, 2] = 77  # the hidden word cannot be seen
    np.testing.assert_allclose(video_model.answer_logits(clips, other, slot), logits, atol=1e-5)
    with pytest.raises(DataError, match="has no decoder"):
        image_model.answer_logits(clips, ids, slot)


def test_bad_videos_are_named(video_model, tmp_path):
    (tmp_path / "no.mp4").write_bytes(b"this is no video")
    with pytest.raises(DataError, match=r"no\.mp4"):
        video_model.encode_video([tmp_path / "no.mp4"])
    with pytest.raises(DataError, match="gone"):
        video_model.encode_video([tmp_path / "gone.mp4"])


def test_the_package_names_what_it_offers():
    assert harvest_jax.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = harvest_jax.nothing
