import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import grain
import numpy as np
import pytest
import simplejpeg
from orbax.checkpoint import v1 as ocp

from data_pipeline.shards import shard_format
from harvest_jax.checkpoint.run_identity import check_identity
from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.config import RunConfig, check, load_dict
from harvest_jax.errors import CheckpointError, ConfigError, DataError, HarvestError
from harvest_jax.input.batches import Batches
from harvest_jax.input.loader_processes import loader_processes
from harvest_jax.input.patches import gather, num_kept, patchify
from harvest_jax.input.pipeline import evaluation_clips, training_batches
from harvest_jax.input.tokenizer import Tokenizer
from harvest_jax.pixels.square import prepare_clip
from harvest_jax.train.identity import identity
from tests.helpers.shard_files import damage, write_records

SIZE, PATCH, FRAMES, LENGTH = 32, 8, 4, 22
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
TOKENIZER = Tokenizer(1000)


def make_record(number: int, frames: int = 6, height: int = 40, width: int = 52, **changes) -> shard_format.Record:
    """A clip of noise-free frames that differ in every corner and over time; its caption names its number."""
    y, x = np.mgrid[:height, :width]
    jpegs = []
    for t in range(frames):
        frame = np.stack([(4 * x + 20 * number) % 256, (5 * y + 30 * t) % 256, (3 * (x + y) + 11 * t) % 256], axis=-1)
        jpegs.append(simplejpeg.encode_jpeg(frame.astype(np.uint8), quality=95, colorspace="RGB"))
    fields = {
        "id": f"clip-{number}",
        "captions": (f"the clip number {WORDS[number]}",),
        "jpegs": tuple(jpegs),
        "seconds": tuple(0.5 * t for t in range(frames)),
        "width": width,
        "height": height,
        "extra": {},
    }
    return shard_format.Record(**(fields | changes))


def write(folder: Path, split: str, records: list[shard_format.Record]) -> None:
    write_records(folder, split, [shard_format.encode(record) for record in records], shards=min(2, len(records)))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write(folder, "train", [make_record(i) for i in range(10)])
    write(folder, "pair", [make_record(i, captions=("left", "right", "up")) for i in range(2)])
    write(folder, "exact", [make_record(i, height=SIZE, width=SIZE) for i in range(5)])
    return folder


def config(folder, *overrides: str) -> RunConfig:
    base = {
        "seed": 3,
        "model.num_frames": FRAMES,
        "model.keep_ratio": 0.25,
        "text.length": LENGTH,
        "text.mask_ratio": 0.4,
        "data.shards": folder,
        "train.batch_size": 4,
    }
    path = os.path.join(os.path.dirname(__file__), "..", "..", "configs", "base.py")
    return check(load_dict(path, [*(f"{key}={value}" for key, value in base.items()), *overrides]).to_dict())


def batches(folder, *overrides: str, process: tuple[int, int] = (0, 1)) -> Batches:
    return training_batches(config(folder, *overrides), SIZE, PATCH, TOKENIZER, *process)


def take(folder, count: int, *overrides: str, process: tuple[int, int] = (0, 1)) -> list[dict[str, np.ndarray]]:
    iterator = batches(folder, *overrides, process=process)
    taken = [next(iterator) for _ in range(count)]
    iterator.close()
    return taken


def assert_equal(left, right) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert np.array_equal(one[name], other[name]), name


def captions(batch) -> list[str]:
    return [TOKENIZER.decode(ids) for ids in batch["ids"]]


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
            assert np.array_equal(patches, gather(patchify(videos[caption], PATCH), positions))


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
            straight = np.array_equal(patches, gather(patchify(video, PATCH), positions))
            turned = np.array_equal(patches, gather(patchify(video[:, :, ::-1], PATCH), positions))
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


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_batches_of_one(shards, count):
    alone = take(shards, 6)
    parts = [take(shards, 6, process=(p, count)) for p in range(count)]
    for step, whole in enumerate(alone):
        for name, array in whole.items():
            assert parts[0][step][name].shape[0] == 4 // count
            for p in range(count):
                assert np.array_equal(parts[p][step][name], array[p::count]), name


@pytest.mark.parametrize("step", [0, 1, 2, 3, 7])  # ten clips in batches of four: the epoch ends within the third
def test_state_goes_on_exactly(shards, step):
    straight = take(shards, step + 4)
    stopped = batches(shards)
    for _ in range(step):
        next(stopped)
    state = json.loads(json.dumps(stopped.get_state()))
    stopped.close()
    resumed = batches(shards, "data.prefetch=5")
    next(resumed)  # whatever was read before the state is set does not matter
    resumed.set_state(state)
    assert_equal([next(resumed) for _ in range(4)], straight[step:])
    assert resumed.get_state() == {"next_batch": step + 4}
    resumed.close()


@pytest.mark.parametrize("stop", [4, 5, 6])
def test_resuming_at_the_end_of_an_epoch_with_other_workers(shards, stop):
    """Ten clips in batches of two: the fifth batch is an epoch's last."""
    straight = take(shards, 8, "train.batch_size=2")
    stopped = batches(shards, "train.batch_size=2")
    list(itertools.islice(stopped, stop))
    state = stopped.get_state()
    stopped.close()
    for workers in (0, 1) if stop == 5 else (0,):
        resumed = batches(shards, "train.batch_size=2", f"data.workers={workers}")
        resumed.set_state(state)
        assert_equal(list(itertools.islice(resumed, 8 - stop)), straight[stop:])
        resumed.close()
    drawn = [caption for batch in straight for caption in captions(batch)]
    assert len(set(drawn[:10])) == 10


def test_shards_that_were_changed_or_added_are_another_set(tmp_path):
    """What a checkpoint keeps of the data, and a run that goes on compares."""
    records = [make_record(i) for i in range(6)]
    digests = []
    for name, changed in (("same", records), ("again", records), ("added", [*records, make_record(7)])):
        write(tmp_path / name, "train", changed)
        digests.append(batches(tmp_path / name).sets.digest)
    write(tmp_path / "changed", "train", [*records[:5], make_record(5, captions=("the clip number seven",))])
    digests.append(batches(tmp_path / "changed").sets.digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    config_of = config(tmp_path / "same")
    with pytest.raises(CheckpointError, match=r"data_digest was .* and is"):
        check_identity(identity(config_of, digests[0]), identity(config_of, digests[2]), Workdir(tmp_path))


def test_orbax_saves_and_restores_the_position(shards, tmp_path):
    straight = take(shards, 6)
    stopped = batches(shards)
    for _ in range(3):
        next(stopped)
    ocp.save_checkpointables(tmp_path / "step", {"data": stopped})
    stopped.close()
    resumed = batches(shards)
    ocp.load_checkpointables(tmp_path / "step", {"data": resumed})
    assert_equal([next(resumed) for _ in range(3)], straight[3:])
    resumed.close()


def test_worker_processes_give_the_same_batches_and_end(shards):
    straight = take(shards, 7)
    before = set(multiprocessing.active_children())
    iterator = batches(shards, "data.workers=2")
    iterator.set_state({"next_batch": 2})
    taken = [{name: array.copy() for name, array in next(iterator).items()} for _ in range(3)]
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 2
    state = iterator.get_state()
    iterator.close()
    assert_equal(taken, straight[2:5])
    assert not any(worker.is_alive() for worker in workers)

    in_threads = batches(shards)
    in_threads.set_state(state)
    assert_equal([next(in_threads) for _ in range(2)], straight[5:])
    in_threads.close()


def test_a_killed_worker_is_one_clear_error_and_the_others_end(shards):
    before = set(multiprocessing.active_children())
    iterator = batches(shards, "data.workers=2")
    next(iterator)
    workers = set(multiprocessing.active_children()) - before
    os.kill(min(worker.pid for worker in workers), signal.SIGKILL)
    with pytest.raises(HarvestError, match=r"loader process died.*data\.workers"):
        list(itertools.islice(iterator, 40))  # the batches it had made may still come
    iterator.close()
    deadline = time.monotonic() + 60
    while set(multiprocessing.active_children()) - before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


TRAINER = """
import multiprocessing, time
from harvest_jax.config import check, load_dict
from harvest_jax.input.pipeline import training_batches
from harvest_jax.input.tokenizer import Tokenizer
run = check(load_dict({config!r}, ["data.shards={shards}", "data.workers=1", "train.batch_size=2"]).to_dict())
batches = training_batches(run, 32, 8, Tokenizer(1000), 0, 1)
next(batches)
print(multiprocessing.active_children()[0].pid, flush=True)
time.sleep(60)
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_worker_ends_when_the_trainer_is_killed(shards):
    root = Path(__file__).resolve().parents[2]
    code = TRAINER.format(config=str(root / "configs" / "base.py"), shards=shards)
    with subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True) as trainer:
        worker = int(trainer.stdout.readline())
        assert is_running(worker)
        trainer.kill()
    deadline = time.monotonic() + 60
    while is_running(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_hung_worker_is_one_clear_error(shards, monkeypatch):
    iterator = batches(shards, "data.workers=2")
    next(iterator)
    monkeypatch.setattr("harvest_jax.input.batches.HUNG_SECONDS", 5.0)
    worker = loader_processes()[0]
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(HarvestError, match=rf"no batch for \d+ s; the loader processes: .*{worker.pid} stopped"):
        list(itertools.islice(iterator, 40))  # the batches it had made may still come
    iterator.close()
    assert not worker.is_alive()


def test_threads_end_at_close(shards):
    before = set(threading.enumerate())
    iterator = batches(shards, "data.prefetch=3")
    next(iterator)
    assert set(threading.enumerate()) - before
    iterator.close()
    iterator.close()
    deadline = time.monotonic() + 60
    while set(threading.enumerate()) - before:
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.02)
    with pytest.raises(ValueError, match="closed"):
        next(iterator)


def test_fewer_clips_than_a_batch(shards):
    (batch,) = take(shards, 1, "data.split=pair", "train.batch_size=8")
    assert batch["index"].tolist() == list(range(8))


def test_epochs_of_one_set(shards):
    iterator = batches(shards)
    assert isinstance(iterator, grain.DatasetIterator)
    assert iterator.sets.num_clips == 10
    assert iterator.report(25) == {"epoch": 2.5}
    iterator.close()


@pytest.fixture(scope="module")
def two_sets(shards, tmp_path_factory):
    stills = tmp_path_factory.mktemp("stills")
    write(stills, "train", [make_record(i, frames=1, captions=(f"picture {WORDS[i]}",)) for i in range(4)])
    return f"{shards},{stills}"


def test_sets_are_mixed_by_weight(two_sets):
    taken = take(two_sets, 12, "data.weights=(3, 1)")
    drawn = [caption for batch in taken for caption in captions(batch)]
    pictures = [caption for caption in drawn if "picture" in caption]
    assert len(pictures) == len(drawn) / 4 == 12
    assert all(
        sum("picture" in caption for caption in captions(batch)) == 1 for batch in taken
    )  # in every batch of four
    for kind, clips in (("picture", 4), ("clip", 10)):  # every set in whole passes, each in another order
        seen = [caption for caption in drawn if kind in caption]
        passes = [seen[begin : begin + clips] for begin in range(0, len(seen) - clips + 1, clips)]
        assert len(passes) >= 3
        assert all(len(set(once)) == clips for once in passes)
        assert len({tuple(once) for once in passes}) > 1


def test_sets_without_weights_are_mixed_by_size(two_sets):
    taken = take(two_sets, 14)
    drawn = [caption for batch in taken for caption in captions(batch)]
    assert sum("picture" in caption for caption in drawn) == len(drawn) * 4 // 14


def test_a_mixture_resumes_exactly_and_is_shared_by_processes(two_sets):
    overrides = ("data.weights=(2, 1)",)
    whole = take(two_sets, 6, *overrides)
    iterator = batches(two_sets, *overrides)
    iterator.set_state({"next_batch": 4})
    assert_equal([next(iterator), next(iterator)], whole[4:])
    assert iterator.report(30) == {
        f"epoch/{os.path.basename(folder)}": pytest.approx(value)
        for folder, value in zip(two_sets.split(","), (2.0, 2.5), strict=True)
    }
    iterator.close()
    parts = [take(two_sets, 6, *overrides, process=(index, 2)) for index in range(2)]
    for number, batch in enumerate(whole):
        for name, rows in batch.items():
            for index, part in enumerate(parts):
                assert np.array_equal(part[number][name], rows[index::2]), name


@pytest.mark.parametrize(
    ("shards_field", "weights", "fault"),
    [
        ("a,b", "(1,)", "1 numbers for 2 folders"),
        ("a,b", "(1, 0)", "data.weights=0.0 is outside"),
        ("a,b", "(1, 'x')", "data.weights: expected a number"),
        ("a,", "()", "empty folder"),
        ("a,b,a", "()", "twice"),
    ],
)
def test_mixtures_that_cannot_be(shards_field, weights, fault):
    with pytest.raises(ConfigError, match=fault):
        config(shards_field, f"data.weights={weights}")


def test_batch_that_processes_cannot_share(shards):
    with pytest.raises(ConfigError, match=r"train\.batch_size=4 cannot be shared evenly by 3"):
        batches(shards, process=(0, 3))


def test_patches_that_do_not_tile(shards):
    with pytest.raises(ConfigError, match="30 pixels"):
        training_batches(config(shards), 30, PATCH, TOKENIZER, 0, 1)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"jpegs": (b"not a jpeg",) * 6}, "frame 0 cannot be read as JPEG"),
        ({"jpegs": (make_record(0).jpegs[0][:300],) * 6}, "frame 0 cannot be read as JPEG"),
        ({"jpegs": (make_record(0).jpegs[0], *make_record(0, height=48).jpegs[1:])}, "frame . is .*48, 52, 3"),
        ({"jpegs": (make_record(0).jpegs[0], *make_record(0, height=32).jpegs[1:])}, "frame . is .*32, 52, 3"),
        ({"jpegs": (), "seconds": ()}, "no frames"),
        ({"captions": ()}, "no caption"),
    ],
)
def test_a_bad_record_is_named(tmp_path, changes, fault):
    write(tmp_path, "train", [make_record(5, **changes)])
    iterator = batches(tmp_path)
    with pytest.raises(DataError, match=f"record 0 .*clip-5.* of split train in {tmp_path}.*{fault}") as caught:
        next(iterator)
    assert "\n" not in str(caught.value)
    iterator.close()


@pytest.fixture
def damaged(tmp_path):
    write(tmp_path, "train", [make_record(i) for i in range(6)])
    sound = take(tmp_path, 3)
    damage(tmp_path, "train", 2)
    damage(tmp_path, "train", 3)
    return tmp_path, sound


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_records_are_replaced_and_counted(damaged, caplog, workers):
    folder, sound = damaged
    iterator = batches(folder, "data.bad_records=2", f"data.workers={workers}")
    taken = [next(iterator) for _ in range(3)]
    assert iterator.report(12)["bad_records"] == 2
    iterator.close()
    lines = [record.message for record in caplog.records if "is damaged" in record.message]
    assert sorted(line.split(" of ")[0] for line in lines) == ["rank 0: record 2", "rank 0: record 3"]  # each once
    replaced = 0
    for before, after in zip(sound, taken, strict=True):
        assert before.keys() == after.keys()
        for row, (was, now) in enumerate(zip(captions(before), captions(after), strict=True)):
            if was in ("the clip number three", "the clip number four"):  # records 2 and 3 of the stored order
                assert now == "the clip number five"
                replaced += 1
            else:
                assert all(np.array_equal(before[name][row], after[name][row]) for name in before)
    assert replaced == 4


def test_a_resumed_run_remembers_its_damaged_records(tmp_path):
    write(tmp_path, "train", [make_record(i) for i in range(6)])
    damage(tmp_path, "train", 2)
    first = batches(tmp_path, "data.bad_records=1")
    list(itertools.islice(first, 2))
    state = json.loads(json.dumps(first.get_state()))
    first.close()
    assert state == {"next_batch": 2, "damaged": [[0, 2]]}
    damage(tmp_path, "train", 4)
    resumed = batches(tmp_path, "data.bad_records=1")
    resumed.set_state(state)
    with pytest.raises(DataError, match=r"record 4 .*one more than data\.bad_records=1"):
        list(itertools.islice(resumed, 3))
    resumed.close()


@pytest.mark.parametrize("allowed", [0, 1])
def test_one_damaged_record_more_than_allowed_ends_the_run(damaged, allowed):
    folder, _ = damaged
    iterator = batches(folder, f"data.bad_records={allowed}")
    with pytest.raises(DataError, match="damaged.*again" if not allowed else "more than data.bad_records=1"):
        list(itertools.islice(iterator, 3))
    iterator.close()


def test_a_set_of_damaged_records_alone_is_given_up(tmp_path):
    write(tmp_path, "train", [make_record(i) for i in range(2)])
    damage(tmp_path, "train", 0)
    damage(tmp_path, "train", 1)
    iterator = batches(tmp_path, "data.bad_records=100", "train.batch_size=2")
    with pytest.raises(DataError, match="damaged"):
        next(iterator)
    iterator.close()


def test_bytes_that_are_no_record_are_named(tmp_path):
    write_records(tmp_path, "train", [b"something else"])
    iterator = batches(tmp_path)
    with pytest.raises(DataError, match=f"record 0 of split train in {tmp_path}"):
        next(iterator)
    iterator.close()


def test_a_split_without_clips(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_format, "open_shards", lambda folder, split: [])
    with pytest.raises(ConfigError, match=r"split 'train' of .* has no clips"):
        batches(tmp_path)


def test_a_split_that_is_not_there(shards):
    with pytest.raises(DataError, match="no split 'test'"):
        batches(shards, "data.split=test")


def test_a_bad_record_is_named_by_a_worker_process(tmp_path):
    write(tmp_path, "train", [make_record(5, jpegs=(b"",) * 6)])
    iterator = batches(tmp_path, "data.workers=1")
    with pytest.raises(DataError, match="clip-5") as caught:
        next(iterator)
    assert "\n" not in str(caught.value)
    iterator.close()


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
