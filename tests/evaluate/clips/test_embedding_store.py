"""`harvest eval --store`: what is embedded again and what not, equal results, stores that are damaged or full."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import harvest_jax
from data_pipeline.decode.colours import CONVERSION
from harvest_jax.embeddings_file import read
from harvest_jax.errors import ConfigError
from harvest_jax.evaluate.clips import embedding_store, file_digests
from harvest_jax.evaluate.clips.embedding_store import open_store
from harvest_jax.evaluate.clips.file_digests import FileDigests
from tests.data_pipeline.decode.test_colours import BT2020, PQ, write_tagged
from tests.evaluate.test_frame_average import small
from tests.helpers.colour_evaluation import COLOURS, CONFIGS, REPOSITORY, captioned, evaluate, manifest, write_shards
from tests.helpers.disks import small_disk
from tests.helpers.model_folders import save_random_model
from tests.helpers.small_model import TINY


@pytest.fixture
def scored(model, tmp_path):
    """Evaluate; gives the result, the clips and the texts that the model saw."""
    encode_text, texts = model.encode_text, []

    def counting(given):
        texts.extend(dict.fromkeys(given))  # a call is filled up with its last text
        return encode_text(given)

    model.encode_text = counting

    def score(words, task="retrieval", store=True):
        model.clips_seen = 0
        texts.clear()
        result = evaluate(task, [*words, *(["--store", str(tmp_path / "store")] if store else [])], tmp_path)
        return result, model.clips_seen, len(texts)

    return score


@pytest.fixture
def own_videos(videos, tmp_path):
    """Copies that a test may change; they are old, so that their digests are remembered."""
    folder = tmp_path / "own"
    shutil.copytree(videos, folder)
    for path in folder.iterdir():
        os.utime(path, (1e9, 1e9))
    return folder


def without_run(result):
    return {key: value for key, value in result.items() if key != "run"}


def segments(tmp_path, way=""):
    return sorted((tmp_path / "store").glob(f"*/{way}*/*.safetensors"))


def test_the_second_evaluation_reads_no_video_and_has_the_same_result(own_videos, scored, tmp_path, capsys):
    rows = [*captioned(*COLOURS), {"id": "end", "video": "red_then_blue.mp4", "start": 1.2, "caption": "blue end"}]
    words = manifest(own_videos, tmp_path, rows)
    without, clips, texts = scored(words, store=False)
    assert (clips, texts, "store" in without["run"]) == (5, 5, False)
    first, clips, texts = scored(words)
    assert (clips, texts) == (5, 5)
    second, clips, texts = scored(words)
    assert (clips, texts) == (0, 0)
    assert without_run(without) == without_run(first) == without_run(second)  # with the digest of all ranks
    found = {name.split("-")[0]: facts for name, facts in second["run"]["store"].items()}
    assert {way: (facts["from_store"], facts["computed"]) for way, facts in found.items()} == {
        "forward": (5, 0),
        "text": (5, 0),
    }
    assert "10 of 10 embeddings came from the store" in capsys.readouterr().out
    for folder in (tmp_path / "store").glob("*/*-*"):
        made_by = json.loads((folder / "made_by.json").read_text())
        assert (made_by["model"], made_by["way"]) == ("colours", folder.name.split("-")[0])
    forward = next((tmp_path / "store").glob("*/forward-*/made_by.json")).read_text()
    assert all(word in forward for word in ("libavcodec", "segment_middle", "pillow", '"frames": 4', '"crop"'))


def test_the_protocol_says_that_colours_were_converted_if_they_were(own_videos, scored, tmp_path):
    words = manifest(own_videos, tmp_path, captioned(*COLOURS))
    plain, _, _ = scored(words)
    assert "colours" not in plain["protocol"]["frame_source"]
    hdr = np.zeros((8, 48, 64, 3), np.uint16) + np.array([2600, 500, 500], np.uint16)
    write_tagged(own_videos / "red.mp4", hdr, "ffv1", "gbrp12le", PQ, BT2020, 0)
    first, clips, _ = scored(words)
    assert (clips, first["protocol"]["frame_source"]["colours"]) == (1, CONVERSION)
    assert first["protocol_hash"] != plain["protocol_hash"]
    second, clips, _ = scored(words)
    assert (clips, without_run(second)) == (0, without_run(first))


def test_other_tasks_and_other_names_use_the_same_embeddings(own_videos, scored, tmp_path):
    scored(manifest(own_videos, tmp_path, captioned(*COLOURS)))
    (own_videos / "red.mp4").rename(own_videos / "renamed.mp4")
    rows = [{"video": f"{name}.mp4", "label": name} for name in ("renamed", "green", "blue", "yellow", "red_then_blue")]
    _, clips, _ = scored(manifest(own_videos, tmp_path, rows), "zero_shot")
    assert clips == 1


def test_each_way_to_look_at_a_clip_is_stored_by_itself(own_videos, scored, tmp_path):
    words = manifest(own_videos, tmp_path, captioned(*COLOURS))
    scored(words)
    own, clips, _ = scored([*words, "--config.frame_average=True"])
    assert clips == 4 * 4  # the stills
    plain, _, _ = scored([*words, "--config.frame_average=True"], store=False)
    assert without_run(own) == without_run(plain)
    turned, clips, _ = scored(words, "reversal")
    assert clips == 4  # backwards
    again, clips, _ = scored(words, "reversal")
    assert (clips, without_run(again)) == (0, without_run(turned))
    assert without_run(scored(words, "reversal", store=False)[0]) == without_run(turned)


def test_an_embedding_has_the_same_bits_whatever_it_was_embedded_with(own_videos, scored, tmp_path, monkeypatch):
    real = small(4)  # which rounds
    monkeypatch.setitem(harvest_jax.__dict__, "load", lambda folder: real)
    names = [*COLOURS, "red_then_blue"]
    words = manifest(own_videos, tmp_path, captioned(*names))
    plain, _, _ = scored(words, "reversal", store=False)
    for some in (names[2:3], names[:4]):
        scored(manifest(own_videos, tmp_path, captioned(*some), f"{len(some)}.jsonl"), "reversal")
    mixed, _, _ = scored(words, "reversal")
    assert [facts["from_store"] for facts in mixed["run"]["store"].values()] == [4] * 4
    assert without_run(mixed) == without_run(plain)
    assert plain["metrics"]["difference"] != 0


def test_changed_files_spans_frames_and_models_are_noticed(own_videos, scored, model, tmp_path, monkeypatch):
    words = manifest(own_videos, tmp_path, captioned(*COLOURS))
    scored(words)
    status = (own_videos / "red.mp4").stat()
    shutil.copy(own_videos / "red_then_blue.mp4", own_videos / "red.mp4")
    os.utime(own_videos / "red.mp4", ns=(status.st_atime_ns, status.st_mtime_ns))  # another size
    assert scored(words)[1] == 1
    rows = [*captioned("green"), {"id": "end", "video": "green.mp4", "start": 0.5, "caption": "green end"}]
    assert scored(manifest(own_videos, tmp_path, rows, "spans.jsonl"))[1] == 1
    monkeypatch.setattr(model, "frames_expected", 2)
    assert scored([*words, "--config.frames=2"])[1] == 4
    assert scored([*words, "--config.frames=2"])[1] == 0
    monkeypatch.setattr(model, "frames_expected", 4)
    monkeypatch.setattr(model, "digest", "other weights")
    assert scored(words)[1:] == (4, 4)
    monkeypatch.setattr("harvest_jax.evaluate.clips.frame_readers.version", lambda name: "another")
    assert scored(words)[1:] == (4, 0)


def test_unreadable_videos_are_tried_again_and_reported_alike(own_videos, scored, tmp_path):
    words = [*manifest(own_videos, tmp_path, captioned(*COLOURS, "broken", "gone")), "--allow_missing"]
    first, _, _ = scored(words)
    again, clips, _ = scored(words)
    assert (clips, again["n_missing"]) == (0, 2)
    assert without_run(again) == without_run(first)
    shutil.copy(own_videos / "red_then_blue.mp4", own_videos / "gone.mp4")
    found, clips, _ = scored(words)
    assert (clips, found["n_missing"]) == (1, 1)


def test_shards_are_known_by_their_frames(videos, scored, model, tmp_path):
    rows = [(name, name, (f"a {name} square",), {}) for name in COLOURS]
    words = write_shards(tmp_path / "shards", videos, rows)
    first, clips, _ = scored(words)
    assert clips == 4
    again, clips, _ = scored(words)
    assert (clips, without_run(again)) == (0, without_run(first))  # stored frames and sizes are in the protocol
    others = [(f"of {name}", name, ("another caption",), {}) for name in ("red", "red_then_blue")]
    assert scored(write_shards(tmp_path / "others", videos, others))[1] == 1


@pytest.mark.parametrize("damage", [lambda b: b[:-7], lambda b: b[:-9] + b"123456789", lambda b: b"", lambda b: b"no"])
def test_a_damaged_segment_is_set_aside_and_embedded_again(own_videos, scored, tmp_path, capsys, damage):
    words = manifest(own_videos, tmp_path, captioned(*COLOURS))
    first, _, _ = scored(words)
    (segment,) = segments(tmp_path, "forward")
    segment.write_bytes(damage(segment.read_bytes()))
    capsys.readouterr()
    again, clips, texts = scored(words)
    assert (clips, texts, without_run(again)) == (4, 0, without_run(first))
    said = capsys.readouterr().err
    assert f"warning: {segment} of the store is damaged" in said
    assert said.count("\n") == 1
    assert segment.with_name(f"{segment.name}.damaged").exists()
    assert scored(words)[1:] == (0, 0)


def test_a_segment_of_another_folder_is_not_used(own_videos, scored, model, tmp_path, monkeypatch):
    words = manifest(own_videos, tmp_path, captioned(*COLOURS))
    scored(words)
    (mine,) = segments(tmp_path, "forward")
    monkeypatch.setattr(model, "digest", "other")
    scored(words)
    (theirs,) = set(segments(tmp_path, "forward")) - {mine}
    shutil.copy(mine, theirs)
    assert scored(words)[1] == 4


def test_embeddings_that_are_not_finite_are_not_stored(tmp_path):
    rows = np.array([[1, 2], [np.nan, 1], [3, 4]], np.float32)
    with open_store(tmp_path, "model", print) as store:
        store.folder("text", {}).add(["a", "b", "c"], rows, [None] * 3)
    with open_store(tmp_path, "model", print) as store:
        folder = store.folder("text", {})
        np.testing.assert_array_equal(folder.find("c").embedding, rows[2])
        assert folder.find("b") is None


def test_many_small_segments_become_one(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_store, "SMALL_SEGMENTS", 3)
    for number in range(4):
        with open_store(tmp_path, "model", print) as store:
            folder = store.folder("text", {})
            assert all(folder.find(f"{earlier}").embedding[0] == earlier for earlier in range(number))
            folder.add([f"{number}"], np.full((1, 2), number, np.float32), [None])
    assert len(list(tmp_path.glob("*/*/*.safetensors"))) == 2


def test_questions_use_no_store(videos, scored, tmp_path, capsys):
    rows = [{"id": name, "video": f"{name}.mp4", "question": "what?", "answer": name} for name in COLOURS]
    result, _, _ = scored([*manifest(videos, tmp_path, rows), "--config.answers=test_set"], "videoqa")
    assert result["run"]["store"] == {}
    assert "nothing was taken from the store: this task needs no embeddings" in capsys.readouterr().out


def test_processes_find_what_others_wrote_and_lose_nothing_when_segments_are_joined(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_store, "SMALL_SEGMENTS", 3)
    monkeypatch.setattr(embedding_store, "LOOK_SECONDS", 0.0)
    row = np.ones((1, 2), np.float32)

    def opened():
        return embedding_store.EmbeddingStore(tmp_path, "model", pytest.fail).folder("text", {})

    first, second = opened(), opened()
    for number in range(2):
        first.add([f"first {number}"], row, [None])
        first.write()
    assert second.find("first 1") is not None
    assert first.find("first 1") is None  # its own: of the running evaluation
    second.add(["second"], row, [None])
    second.write()
    third = opened()  # joins all three segments, two of which the first process would join itself
    assert len(list(tmp_path.glob("*/*/*.safetensors"))) == 1
    first.add(["first 2"], row, [None])
    first.write()
    assert third.find("first 2") is not None
    names = ["first 0", "first 1", "first 2", "second"]
    assert all(opened().find(name) is not None for name in names)
    assert all(folder.find(name) is not None for folder in (second, third) for name in names if name != "second")


def test_a_segment_that_is_joined_while_it_is_looked_for_is_found_in_the_other_one(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_store, "LOOK_SECONDS", 0.0)

    def opened():
        return embedding_store.EmbeddingStore(tmp_path, "model", pytest.fail).folder("text", {})

    writer, reader = opened(), opened()
    for number in range(3):
        writer.add([f"{number}"], np.full((1, 2), number, np.float32), [None])
        writer.write()
    real = embedding_store.embeddings_file.read

    def joined_before(path, kind):
        writer.join()  # the segments of the list that the reader has are gone
        return real(path, kind)

    monkeypatch.setattr(embedding_store.embeddings_file, "read", joined_before)
    assert [reader.find(f"{number}").embedding[0] for number in range(3)] == [0, 1, 2]


WRITER = """
import sys
import numpy as np
from harvest_jax.evaluate.clips import embedding_store
embedding_store.SMALL_SEGMENTS = 3
folder = embedding_store.EmbeddingStore(embedding_store.Path(sys.argv[1]), "model", print).folder("text", {})
for number in range(100_000):
    name = f"{sys.argv[2]} {number}"
    folder.add([name], np.full((1, 2), number, np.float32), [None])
    folder.write()
    print(name, flush=True)
"""


def test_what_processes_wrote_is_there_whenever_they_are_killed(tmp_path):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name], env=environment, stdout=subprocess.PIPE)
        for name in ("a", "b", "c")
    ]
    written = []
    for count, writer in zip((20, 31, 42), writers, strict=True):
        written += [writer.stdout.readline().decode().strip() for _ in range(count)]
        writer.kill()
    for writer in writers:
        written += writer.stdout.read().decode().splitlines()
        writer.stdout.close()
        writer.wait()
    with open_store(tmp_path, "model", pytest.fail) as store:  # nothing is damaged
        folder = store.folder("text", {})
        found = {name: folder.find(name) for name in written}
    assert len(found) >= 93
    assert all(stored is not None and stored.embedding[0] == int(name[2:]) for name, stored in found.items())


def test_embeddings_of_another_device_are_named_in_the_result(own_videos, scored, tmp_path, monkeypatch):
    words = manifest(own_videos, tmp_path, captioned(*COLOURS))
    with monkeypatch.context() as other:
        other.setattr(embedding_store, "computed_by", lambda: "another device, jax 0")
        first, _, _ = scored(words)
    again, clips, _ = scored(words)
    assert clips == 0
    (said,) = [text for text in again["warnings"] if "from the store" in text]
    assert "computed on another device, jax 0, and not here" in said
    assert {facts["store_computed_on"][0] for facts in again["run"]["store"].values()} == {"another device, jax 0"}
    assert again["metrics"] == first["metrics"]


def test_a_folder_that_cannot_be_a_store_is_found_at_the_start(videos, model, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    words = manifest(videos, tmp_path, captioned("red"))
    for store, fault in (("file", "is a file: name a folder"), ("file/below", "cannot be written: Not a directory")):
        evaluate("retrieval", [*words, "--store", str(tmp_path / store)], tmp_path, code=ConfigError.exit_code)
        error = capsys.readouterr().err
        assert fault in error
        assert error.count("\n") == 1
    assert model.clips_seen == 0


def test_a_full_disk_costs_the_store_but_not_the_result(own_videos, scored, tmp_path, capsys):
    words = manifest(own_videos, tmp_path, captioned(*COLOURS))
    plain, _, _ = scored(words, store=False)
    with small_disk(tmp_path / "store", "size=16k") as disk:
        (disk / "filler").write_bytes(bytes(4096))
        with contextlib.suppress(OSError):
            (disk / "filler2").write_bytes(bytes(8192))
        result, _, _ = scored(words)
        said = capsys.readouterr().err.splitlines()
        assert without_run(result) == without_run(plain)
        assert said
        assert all("cannot be written (No space left on device): the evaluation goes on" in line for line in said)


def test_digests_of_files_are_remembered_unless_they_may_change_unseen(tmp_path, monkeypatch):
    old, new, pipe = (tmp_path / name for name in ("old", "new", "pipe"))
    old.write_text("old")
    os.utime(old, (1e9, 1e9))
    new.write_text("new")
    os.mkfifo(pipe)
    paths = [str(path) for path in (old, new, pipe, tmp_path / "missing")]
    digests = FileDigests(tmp_path / "d.json")
    found = list(digests.of(paths))
    assert [value is None for value in found] == [False, False, True, True]
    digests.write()
    read = []
    real = file_digests.sha256_of
    monkeypatch.setattr(file_digests, "sha256_of", lambda path: read.append(str(path)) or real(path))
    again = FileDigests(tmp_path / "d.json")
    assert list(again.of([*paths, str(new)])) == [*found, found[1]]
    assert read == [str(new)]
    assert again.is_current(str(old))
    old.write_text("OLD")
    assert not again.is_current(str(old))
    assert next(again.of([str(old)])) != found[0]
    for damaged in ("", "[]", '{"files": {"x": [1, "a"]}}'):
        (tmp_path / "d.json").write_text(damaged)
        assert list(FileDigests(tmp_path / "d.json").of(paths))[1:] == found[1:]


SEES_ORDER = dataclasses.replace(
    TINY,
    video=dataclasses.replace(TINY.video, num_frames=4, image_size=16, patch_size=8),
    text=dataclasses.replace(TINY.text, vocab_size=600),
    decoder=None,
)
KILLED = """
import sys
from harvest_jax.evaluate.clips import embedding_store
embedding_store.SEGMENT_SECONDS = 0.0  # a segment after each batch
from tests.helpers import killed_at
sys.exit(killed_at.main())
"""


@pytest.mark.slow
def test_killed_again_and_again_it_goes_on_and_ends_with_the_same_result(videos, tmp_path):
    model = save_random_model(tmp_path / "model", SEES_ORDER)
    rows = [*captioned(*COLOURS, "red_then_blue")]
    rows += [{"video": "red_then_blue.mp4", "start": s / 10, "caption": f"red from {s} to blue"} for s in range(1, 8)]
    data = manifest(videos, tmp_path, [{"id": str(number), **row} for number, row in enumerate(rows)])
    out, store = tmp_path / "r.json", tmp_path / "store"

    def run(*more, kill_at=0):
        words = ["--config", str(CONFIGS / "reversal.py"), "--model", str(model), "--out", str(out), *data]
        done = subprocess.run(
            [sys.executable, "-c", KILLED, "rename", str(kill_at), str(store), "eval", *words, *more],
            env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == (-signal.SIGKILL if kill_at else 0), done.stderr
        return json.loads(out.read_text()) if not kill_at else None

    batches = "--config.batch_size=4"
    plain = run(batches)
    out.unlink()
    # 12 texts and 12 clips in three ways; renames are of segments, of made_by.json and of the digests of files.
    kept = []
    for kill_at in (2, 4, 6, 4):
        run(batches, "--store", str(store), kill_at=kill_at)
        kept.append(sum(len(read(path, embedding_store.KIND).rows) for path in store.glob("*/*/*.safetensors")))
    assert kept[0] == 0
    assert kept == sorted(kept)
    assert 12 < kept[2] < 48
    left = list(store.glob("**/*.tmp"))  # a younger one may belong to a running process
    assert left
    for path in left:
        os.utime(path, (1e9, 1e9))
    resumed = run(batches, "--store", str(store))
    facts = resumed["run"]["store"].values()
    assert sum(one["from_store"] for one in facts) == kept[-1]
    assert sum(one["computed"] for one in facts) == 48 - kept[-1]
    assert without_run(resumed) == without_run(plain)  # with the digest of the ranks of all queries
    assert not list(store.glob("*/*/*.tmp"))


@pytest.mark.slow
def test_evaluations_at_once_share_a_store_though_one_is_killed(videos, tmp_path):
    model = save_random_model(tmp_path / "model", SEES_ORDER)
    rows = [*captioned(*COLOURS, "red_then_blue")]
    rows += [{"video": "red_then_blue.mp4", "start": s / 10, "caption": f"red from {s} to blue"} for s in range(1, 8)]
    data = manifest(videos, tmp_path, [{"id": str(number), **row} for number, row in enumerate(rows)])
    store = ["--store", str(tmp_path / "store"), "--config.batch_size=4"]

    def started(name, task, *words):
        given = [
            "--config",
            str(CONFIGS / f"{task}.py"),
            "--model",
            str(model),
            "--out",
            str(tmp_path / name / "r.json"),
            *words,
        ]
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)}
        return subprocess.Popen([sys.executable, "-m", "harvest_jax", "eval", *given, *data], env=environment)

    def ended(*processes):
        return [process.wait(300) for process in processes]

    plain = [started(f"plain {task}", task, "--config.batch_size=4") for task in ("retrieval", "reversal")]
    assert ended(*plain) == [0, 0]
    killed, *others = [started(f"{n}", task, *store) for n, task in enumerate(("reversal", "retrieval", "reversal"))]
    while not segments(tmp_path) and killed.poll() is None:
        time.sleep(0.01)
    killed.kill()
    assert ended(*others) == [0, 0]
    killed.wait()
    assert ended(started("again", "reversal", *store)) == [0]

    def content(name):
        return without_run(json.loads((tmp_path / name / "r.json").read_text()))

    assert content("1") == content("plain retrieval")
    assert content("2") == content("again") == content("plain reversal")
    again = json.loads((tmp_path / "again" / "r.json").read_text())["run"]["store"].values()
    assert all((facts["from_store"], facts["computed"]) == (12, 0) for facts in again)
    assert not list((tmp_path / "store").glob("**/*.damaged"))
