"""What a batch is made of: clips, frames, patches and captions, in an order that the seed decides."""

import numpy as np
import pytest
import simplejpeg

from data_pipeline.shards import shard_format
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.input.patches import num_kept, patchify, take_patches
from harvest_jax.input.pipeline import evaluation_clips, training_batches
from harvest_jax.pixels.square import prepare_clip
from tests.helpers.training_clips import (
    FRAMES,
    LENGTH,
    PATCH,
    SIZE,
    TOKENIZER,
    assert_equal,
    batches,
    captions,
    config,
    make_record,
    take,
    write,
)


def test_a_batch(shards):
    (batch,) = take(shards, 1)
    cells = (SIZE // PATCH) ** 2
    kept = num_kept(FRAMES, cells, 0.25)
    shapes = {name: (array.dtype.name, array.shape) for name, array in batch.items()}
    assert shapes == {
        "patches": ("uint8", (4, kept, PATCH * PATCH * 3)),
        "positions": ("int32", (4, kept)),
        "ids": ("int32", (4, LENGTH)),
        "slots": ("int32", (4, 8)),
        "slot_weights": ("float32", (4, 8)),
        "index": ("int64", (4,)),
    }
    assert batch["index"].tolist() == [0, 1, 2, 3]
    assert np.all(np.diff(batch["positions"]) > 0)
    assert batch["positions"].max() < FRAMES * cells
    assert len({row.tobytes() for row in batch["positions"]}) == 4  # each clip its own draw
    assert all(caption.startswith("the clip number ") for caption in captions(batch))
    for ids, slots, weights in zip(batch["ids"], batch["slots"], batch["slot_weights"], strict=True):
        end = ids.tolist().index(TOKENIZER.eot)
        assert all(0 < slot < end for slot in slots[weights == 1])
    assert batch["slot_weights"].sum() > 0


def test_patches_are_the_pixels_at_their_positions(shards):
    videos = {record.captions[0]: video for record, video in evaluation_clips(shards, "exact", FRAMES, SIZE, "crop")}
    for batch in take(shards, 2, "data.split=exact", "data.sampling=middle", "data.crop=center"):
        for caption, patches, positions in zip(captions(batch), batch["patches"], batch["positions"], strict=True):
            assert np.array_equal(patches, take_patches(patchify(videos[caption], PATCH), positions))


def test_the_last_steps_have_all_patches_in_every_process_and_after_resuming(shards):
    cells = (SIZE // PATCH) ** 2
    stages = ("train.steps=4", "train.unmasked_steps=2")
    for process in ((0, 1), (1, 2)):
        kept = [batch["patches"].shape[1] for batch in take(shards, 5, *stages, process=process)]
        assert kept == [num_kept(FRAMES, cells, 0.25)] * 2 + [FRAMES * cells] * 3
    usual = take(shards, 2)
    assert_equal(usual, take(shards, 2, *stages))  # the steps before are what they are without
    iterator = batches(shards, *stages)
    iterator.set_state({"next_batch": 2})
    assert_equal([next(iterator)], take(shards, 3, *stages)[2:])
    iterator.close()


@pytest.mark.parametrize("flip", [False, True])
def test_moving_patches_are_kept_more_often(tmp_path, flip):
    """The upper left quarter flickers: its cells weigh 2.5 and the others 0.5, so 5 of 8 first draws fall there."""
    video = np.full((FRAMES, SIZE, SIZE, 3), 128, np.uint8)
    video[::2, : SIZE // 2, : SIZE // 2], video[1::2, : SIZE // 2, : SIZE // 2] = 0, 200
    jpegs = tuple(simplejpeg.encode_jpeg(frame, 95, "RGB", "444") for frame in video)
    write(tmp_path, "train", [make_record(i, jpegs=jpegs, seconds=(0.0, 1.0, 2.0, 3.0)) for i in range(8)])
    side = SIZE // PATCH
    share = {}
    for scope in ("clip", "motion"):
        taken = take(
            tmp_path, 40, "data.crop=center", f"data.flip={flip}", "model.keep_ratio=0.1", f"model.drop_scope={scope}"
        )
        assert taken[0]["patches"].shape[1] == num_kept(FRAMES, side**2, 0.1, scope)
        row, column = np.divmod(np.concatenate([batch["positions"].ravel() for batch in taken]) % side**2, side)
        share[scope] = np.mean((row < side // 2) & ((column < side // 2) | flip))
    # half of the mirrored clips have it on the right: the whole upper half is counted then
    assert share["clip"] == pytest.approx(0.5 if flip else 0.25, abs=0.05)
    assert share["motion"] == pytest.approx(0.72 if flip else 0.59, abs=0.05)


def test_flip_mirrors_half_of_the_clips(shards):
    videos = {record.captions[0]: video for record, video in evaluation_clips(shards, "exact", FRAMES, SIZE, "crop")}
    mirrored = []
    chosen = ("data.split=exact", "data.sampling=middle", "data.crop=center", "data.flip=true")
    for batch in take(shards, 8, *chosen):
        for caption, patches, positions in zip(captions(batch), batch["patches"], batch["positions"], strict=True):
            video = videos[caption]
            straight = np.array_equal(patches, take_patches(patchify(video, PATCH), positions))
            turned = np.array_equal(patches, take_patches(patchify(video[:, :, ::-1], PATCH), positions))
            assert straight != turned
            mirrored.append(turned)
    assert 8 <= sum(mirrored) <= 24  # of 32; outside by chance once in 300, and the seed is fixed


def test_every_epoch_has_every_clip_once_in_another_order(shards):
    rows = [caption for batch in take(shards, 5, "train.batch_size=6") for caption in captions(batch)]
    epochs = [rows[start : start + 10] for start in (0, 10, 20)]
    assert all(sorted(epoch) == sorted(epochs[0]) and len(set(epoch)) == 10 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_clip_looks_different_in_every_epoch(shards):
    seen = {}
    for batch in take(shards, 10, "data.split=pair"):
        for i, index in enumerate(batch["index"].tolist()):
            seen[index] = (batch["positions"][i].tobytes(), batch["patches"][i].tobytes())
    assert len(set(seen.values())) == 40


def test_all_captions_of_a_clip_are_used(shards):
    words = {caption for batch in take(shards, 10, "data.split=pair") for caption in captions(batch)}
    assert words == {"left", "right", "up"}


def test_seed_decides_everything(shards):
    assert_equal(take(shards, 3), take(shards, 3))
    first, other = take(shards, 3), take(shards, 3, "seed=4")
    assert [captions(batch) for batch in first] != [captions(batch) for batch in other]
    assert not np.array_equal(first[0]["positions"], other[0]["positions"])


def test_patches_that_do_not_tile(shards):
    with pytest.raises(ConfigError, match="30 pixels"):
        training_batches(config(shards), 30, PATCH, TOKENIZER, 0, 1)


def test_a_split_without_clips(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_format, "open_shards", lambda folder, split: [])
    with pytest.raises(ConfigError, match=r"split 'train' of .* has no clips"):
        batches(tmp_path)


def test_a_split_that_is_not_there(shards):
    with pytest.raises(DataError, match="no split 'test'"):
        batches(shards, "data.split=test")


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_evaluation_clips_are_prepared_clips_in_stored_order(shards, resize):
    pairs = list(evaluation_clips(shards, "train", 3, SIZE, resize))
    again = list(evaluation_clips(shards, "train", 3, SIZE, resize))
    assert sorted(record.id for record, _ in pairs) == sorted(f"clip-{i}" for i in range(10))
    assert [record.id for record, _ in pairs] == [record.id for record, _ in again]
    for record, video in pairs:
        stored = np.stack([simplejpeg.decode_jpeg(jpeg, "RGB") for jpeg in record.jpegs])
        assert video.shape == (3, SIZE, SIZE, 3)
        assert np.array_equal(video, prepare_clip(stored, 3, SIZE, resize))


def test_evaluation_names_a_bad_record(tmp_path):
    write(tmp_path, "test", [make_record(7, jpegs=(b"x",))])
    with pytest.raises(DataError, match="clip-7"):
        next(evaluation_clips(tmp_path, "test", 2, SIZE, "crop"))
