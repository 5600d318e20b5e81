"""The key of a stored embedding holds all that decides about it: what is changed is embedded again, and only that."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from data_pipeline.decode import pool
from data_pipeline.shards import shard_format
from harvest_jax.config.files import load_dict
from harvest_jax.evaluate import evaluation
from harvest_jax.evaluate.clips import embeddings, frame_readers
from harvest_jax.evaluate.clips.embedding_store import open_store
from harvest_jax.evaluate.clips.embeddings import ModelWithStore, embed_in_ways, embed_texts, embed_videos
from harvest_jax.evaluate.clips.evaluation_set import open_set
from harvest_jax.evaluate.trained_head import HeadModel, head_of
from harvest_jax.input.tokenizer import Tokenizer
from tests.helpers.colour_evaluation import CONFIGS, ColourModel, DecoderInThisProcess, manifest
from tests.helpers.shard_files import write_records
from tests.helpers.video_files import write_video

SIDE = 16


class EveryPixelModel(ColourModel):
    """An image model: an embedding depends on every pixel, and on which frame has it."""

    num_frames = 4

    def __init__(self):
        super().__init__()
        self.config.video = SimpleNamespace(image_size=SIDE, num_frames=1)

    def encode_clips(self, clips):
        self.clips_seen += len(clips)
        rng = np.random.default_rng(0)
        frames = clips.reshape(*clips.shape[:2], -1).astype(np.float32)
        of_frame = np.tanh(frames @ rng.normal(size=(frames.shape[2], 8)).astype(np.float32) / 1000)
        return of_frame.transpose(0, 2, 1) @ rng.normal(size=clips.shape[1]).astype(np.float32)

    def encode_video(self, videos):
        raise AssertionError("this model takes any number of frames")

    def encode_text(self, texts):
        ids = self.tokenizer(texts, self.config.text.context_length)
        return np.stack([np.sin(ids).cumsum(axis=1)[:, -1], np.cos(ids).sum(axis=1)], axis=1).astype(np.float32)


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(pool, "VideoDecoder", DecoderInThisProcess)
    return EveryPixelModel()


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Two videos of 3 and 1 seconds, twice as wide as high, with another picture at each moment."""
    folder = tmp_path_factory.mktemp("noise")
    for seed, count in enumerate((24, 8)):
        frames = np.random.default_rng(seed).integers(0, 256, (count, SIDE // 8, SIDE // 4, 3), np.uint8)
        write_video(folder / f"{seed}.mp4", frames.repeat(16, axis=1).repeat(16, axis=2), rate=8)
    return folder


def settings_of(words):
    return evaluation.check(load_dict(str(CONFIGS / "retrieval.py"), [word[9:] for word in words], "evaluation"))


def embedded(model, settings, folder=None, embed=embed_videos):
    """The embeddings, and how many came from the store and were computed."""
    data = open_set(settings.data)
    if folder is None:
        return embed(model, data, settings, lambda *_: None), None
    with open_store(folder, model.digest, pytest.fail) as store:
        found = embed(ModelWithStore(model, store), data, settings, lambda *_: None)
        return found, [(facts["from_store"], facts["computed"]) for facts in store.facts().values()]


CHANGES = {
    "frames": {"frames": 3},
    "first and last frame": {"sampling": "linspace_inclusive"},
    "a rate": {"sampling": "fps"},
    "views": {"views": 2},
    "crops": {"crops": 3},
    "resize": {"resize": "squash"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_setting_gives_another_embedding_and_never_a_stale_one(noise, model, tmp_path, change):
    words = manifest(noise, tmp_path, [{"video": f"{seed}.mp4", "caption": f"noise {seed}"} for seed in range(2)])
    plain = dataclasses.replace(settings_of(words), frames=4)
    store = tmp_path / "store"
    before, counts = embedded(model, plain, store)
    assert counts == [(0, 2)]
    changed = dataclasses.replace(plain, **change)
    expected, _ = embedded(model, changed)
    found, counts = embedded(model, changed, store)
    assert counts == [(0, 2)]
    np.testing.assert_array_equal(found.values, expected.values)
    assert np.abs(found.values - before.values).max(axis=1).min() > 0.01  # a stale one would be seen
    seen = model.clips_seen
    for one, wanted in ((changed, found), (plain, before)):
        again, counts = embedded(model, one, store)
        assert counts == [(2, 0)]
        np.testing.assert_array_equal(again.values, wanted.values)
    assert model.clips_seen == seen


def test_rates_and_views_are_told_apart_too(noise, model, tmp_path):
    words = manifest(noise, tmp_path, [{"video": f"{seed}.mp4", "caption": f"noise {seed}"} for seed in range(2)])
    plain = dataclasses.replace(settings_of(words), frames=4)
    found = []
    for change in ({"sampling_fps": 2.0}, {"sampling_fps": 1.0}, {"sampling_fps": 1.0, "views": 3}):
        settings = dataclasses.replace(plain, sampling="fps", **change)
        own, counts = embedded(model, settings, tmp_path / "store")
        assert counts == [(0, 2)]
        np.testing.assert_array_equal(own.values, embedded(model, settings)[0].values)
        found.append(own.values)
    # At one frame a second the clips have three frames and one: other numbers of frames are in one folder.
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert np.abs(found[one] - found[other]).max() > 0.01


def test_what_the_model_is_shown_by_is_told_apart(noise, model, tmp_path, monkeypatch):
    words = manifest(noise, tmp_path, [{"video": "0.mp4", "caption": "noise"}])
    settings = dataclasses.replace(settings_of(words), frames=4)
    store = tmp_path / "store"
    embedded(model, settings, store)
    model.config.preprocessing.resize = "squash"
    assert embedded(model, settings, store)[1] == [(0, 1)]
    assert embedded(model, dataclasses.replace(settings, resize="crop"), store)[1] == [(1, 0)]  # the model's own before
    model.config.video.image_size = 2 * SIDE
    assert embedded(model, settings, store)[1] == [(0, 1)]
    small = dataclasses.replace(settings, batch_size=3)  # another program, which may round otherwise
    assert embedded(model, small, store)[1] == [(0, 1)]
    assert embedded(model, dataclasses.replace(small, batch_size=4), store)[1] == [(1, 0)]
    monkeypatch.setattr(embeddings, "PRECISION", "default")
    assert embedded(model, settings, store)[1] == [(0, 1)]
    monkeypatch.setattr(frame_readers, "version", lambda name: "another")
    assert embedded(model, settings, store)[1] == [(0, 1)]


def test_stored_frames_of_other_times_are_another_clip(model, tmp_path):
    rng = np.random.default_rng(1)
    jpegs = tuple(shard_format.encode_jpeg(rng.integers(0, 256, (32, 32, 3), np.uint8)) for _ in range(6))
    found = []
    for name, part in (("slow", 1.0), ("fast", 0.25)):
        seconds = tuple(float(part * (number + 0.5)) for number in range(6))
        record = shard_format.Record("0", ("noise",), jpegs, seconds, 32, 32, {})
        write_records(tmp_path / name, "test", [shard_format.encode(record)])
        settings = settings_of([f"--config.data.shards={tmp_path / name}"])
        settings = dataclasses.replace(settings, frames=4, sampling="fps")
        own, counts = embedded(model, settings, tmp_path / "store")
        assert counts == [(0, 1)]
        found.append(own.values)
    assert np.abs(found[0] - found[1]).max() > 0.01
    assert embedded(model, settings, tmp_path / "store")[1] == [(1, 0)]


def test_a_text_is_known_by_its_tokens(model, tmp_path):
    def of(texts):
        with open_store(tmp_path, "weights", pytest.fail) as store:
            values = embed_texts(ModelWithStore(model, store), texts, 16)
            (facts,) = store.facts().values()
            np.testing.assert_array_equal(values, embed_texts(model, texts, 16))
            return values, facts["computed"]

    texts = ["a red square and a green one", "a blue square"]
    before, computed = of(texts)
    assert computed == 2
    assert of(["A red  square and a green one", texts[1]])[1] == 0  # the same tokens
    model.config.text.context_length = 5
    cut, computed = of(texts)
    assert computed == 2
    assert not np.array_equal(cut, before)
    model.config.text.context_length = 24
    model.tokenizer = Tokenizer(600)
    other, computed = of(texts)
    assert computed == 2
    assert not np.array_equal(other, before)


def test_views_are_added_in_their_order_whatever_they_come_with():
    rows = np.random.default_rng(2).normal(size=(3, 8)).astype(np.float32)
    rows *= np.float32([[1], [1000], [3]])  # each counts as a unit vector
    whole = embeddings._Parts(3).add([(7, 0), (7, 1), (7, 2)], rows)
    parts = embeddings._Parts(3)
    assert parts.add([(7, 2)], rows[2:]) == {}
    assert parts.add([(7, 1), (8, 0)], rows[1::-1]) == {}
    late = parts.add([(7, 0)], rows[:1])
    assert list(whole) == list(late) == [7]
    np.testing.assert_array_equal(whole[7], late[7])
    mean = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(whole[7], mean / np.linalg.norm(mean), atol=1e-6)


def test_scores_of_a_head_are_stored_apart_from_embeddings(noise, model, tmp_path):
    model.config.head = SimpleNamespace(kind="classes")
    model.classes = ("one", "other")
    model.class_logits = lambda clips: -model.encode_clips(clips)[:, :2]
    model.head_answer_logits = model.answer_logits
    words = manifest(noise, tmp_path, [{"video": "0.mp4", "caption": "noise"}])
    settings = dataclasses.replace(settings_of(words), frames=4)

    def by_head(given, *rest):
        head = head_of(given, "classification")
        assert isinstance(head, HeadModel)
        return embed_in_ways(given, *rest, {"class_logits": head.class_logits})[0]

    own, _ = embedded(model, settings, tmp_path / "store")
    head, counts = embedded(model, settings, tmp_path / "store", by_head)
    assert counts == [(0, 1)]
    np.testing.assert_array_equal(head.values, -own.values[:, :2])
    assert embedded(model, settings, tmp_path / "store", by_head)[1] == [(1, 0)]


def test_a_file_that_changes_after_it_was_hashed_is_not_stored(noise, model, tmp_path):
    video = tmp_path / "0.mp4"
    video.write_bytes((noise / "0.mp4").read_bytes())
    words = manifest(tmp_path, tmp_path, [{"video": "0.mp4", "caption": "noise"}])
    settings = dataclasses.replace(settings_of(words), frames=4)
    encode = model.encode_clips

    def replacing(clips):
        video.write_bytes((noise / "1.mp4").read_bytes())
        return encode(clips)

    model.encode_clips = replacing
    stale, _ = embedded(model, settings, tmp_path / "store")
    model.encode_clips = encode
    found, counts = embedded(model, settings, tmp_path / "store")
    assert counts == [(0, 1)]
    assert np.abs(found.values - stale.values).max() > 0.01
