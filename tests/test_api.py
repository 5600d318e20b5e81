"""`harvest_jax.load` and what a model does, on real video files."""

import csv
import dataclasses

import numpy as np
import pytest

import harvest_jax
from data_pipeline.decode.clip import decode_clip
from data_pipeline.decode.video_file import DecodeSpec
from harvest_jax.demo.image_clip import SHIPPED
from harvest_jax.errors import DataError
from harvest_jax.model.config import Preprocessing
from harvest_jax.pixels.square import fit
from harvest_jax.weights.folder import load_model, save_model
from tests.helpers.video_files import numbered_frames, write_video


@pytest.fixture(scope="module")
def image_model():
    return harvest_jax.load(SHIPPED)


@pytest.fixture(scope="module")
def video_model(tmp_path_factory):
    """The packaged towers as a video model with a decoder of random weights."""
    import jax

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
    with pytest.raises(DataError, match=r"uint8 \[B, T, H, W, 3\], not float64"):
        video_model.encode_video(np.zeros((1, 2, 8, 8, 3)))


def test_the_package_names_what_it_offers():
    assert harvest_jax.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = harvest_jax.nothing
