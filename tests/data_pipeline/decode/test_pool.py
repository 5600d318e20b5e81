"""The pool of decoder processes: what hangs, crashes or needs too much memory costs one clip."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.decode import pool
from data_pipeline.decode.pool import VideoDecoder
from data_pipeline.media_paths import VideoRejected
from harvest_jax.errors import HarvestError
from harvest_jax.pixels.frame_sampling import Sampling
from tests.helpers import sabotaged_worker
from tests.helpers.video_files import numbered_frames, read_number, write_video

REPOSITORY = Path(__file__).resolve().parents[3]


def whole(paths):
    return [(path, None, None) for path in paths]


@pytest.fixture
def sabotage(monkeypatch):
    monkeypatch.setattr(pool, "WORKER_COMMAND", sabotaged_worker.WORKER_COMMAND)
    monkeypatch.setattr(pool, "PATIENCE", 1.0)


def test_what_hangs_crashes_or_swallows_memory_costs_one_clip(tmp_path, video, sabotage):
    expected = {
        "hang": "timeout: not decoded within 3 s",
        "hang_in_c": "timeout: not decoded within 3 s",
        "crash": "crash: the decoder process crashed (signal 11)",
        "exit": "crash: the decoder process crashed (status 3)",
        "memory": "too much memory: its pictures need more than a decoder may use",
        "eat": "too much memory: its pictures need more than a decoder may use",
        "write": "decoder error: OSError: [Errno 27] File too large",
        "bug": "decoder error: KeyError: 'bug'",
        "killed": "crash: the decoder process crashed (signal 9)",
        "killed_once": None,
        "ended_once": None,
        "good": None,
        "good_too": None,
    }
    for name in expected:
        (tmp_path / f"{name}.mp4").write_bytes(video.read_bytes())
    paths = [tmp_path / f"{name}.mp4" for name in expected]
    with VideoDecoder(num_frames=2, workers=2, time_limit=3.0, memory_limit=1 << 30) as decoder:
        for (name, wanted), result in zip(expected.items(), decoder.decode_all(whole(paths)), strict=True):
            if wanted is None:
                assert isinstance(result, np.ndarray), result
                assert [read_number(frame) for frame in result] == [12, 37]
            else:
                assert isinstance(result, VideoRejected), name
                assert result.reason.startswith(wanted)
                assert str(result).startswith(str(tmp_path / f"{name}.mp4"))
    assert (tmp_path / "write.stolen").stat().st_size == 0  # made, and not one byte written


def test_the_limit_is_of_processor_time(tmp_path, video, sabotage, monkeypatch):
    """So a busy machine refuses nothing: half a second of waiting is none, half a second of computing is too much."""
    monkeypatch.setattr(pool, "PATIENCE", 100.0)
    for name in ("slow", "busy"):
        (tmp_path / f"{name}.mp4").write_bytes(video.read_bytes())
    with VideoDecoder(num_frames=2, time_limit=0.5) as decoder:
        decoder.decode(video)
        assert len(decoder.decode(tmp_path / "slow.mp4")) == 2
        with pytest.raises(VideoRejected, match=r"timeout: more than 0\.5 s of processor time"):
            decoder.decode(tmp_path / "busy.mp4")


def test_spans_of_one_file_are_decoded_by_all_workers_and_come_in_order(tmp_path, video, sabotage):
    """Each of the first two spans waits until the other is being decoded: one worker alone would time out."""
    (tmp_path / "meeting.mp4").write_bytes(video.read_bytes())
    spans = [(tmp_path / "meeting.mp4", 0.0, 1.0), (tmp_path / "meeting.mp4", 3.0, 4.0), (video, 1.0, 2.0)]
    spans += [(video, 90.0, 99.0), (video, 2.0, None), (video, None, 2.0)]
    with VideoDecoder(num_frames=2, workers=2) as decoder:
        results = list(decoder.decode_all(spans))
    assert results.pop(3).reason.startswith("bad span: it starts at 90 s")
    numbers = [[read_number(frame) for frame in result] for result in results]
    assert numbers == [[2, 7], [32, 37], [12, 17], [27, 42], [5, 15]]


def test_a_clip_that_hangs_delays_the_others_and_loses_none(tmp_path, video, sabotage):
    """While the first clip hangs, others are decoded until no more results may wait; after it, the rest are."""
    (tmp_path / "hang.mp4").write_bytes(video.read_bytes())
    with VideoDecoder(num_frames=2, workers=2, time_limit=3.0) as decoder:
        results = list(decoder.decode_all(whole([tmp_path / "hang.mp4", *[video] * 50])))
    assert [isinstance(result, np.ndarray) for result in results] == [False] + [True] * 50


def children_of(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(path.parent.name))
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@contextlib.contextmanager
def parent_of_hanging_workers(video: Path, count: int, time_limit: float) -> Iterator[subprocess.Popen[str]]:
    """A process whose `count` workers hang in a call of C that holds Python's lock."""
    script = (
        "from data_pipeline.decode import pool\n"
        f"pool.WORKER_COMMAND, pool.PATIENCE = {sabotaged_worker.WORKER_COMMAND!r}, 1.0\n"
        f"with pool.VideoDecoder(workers={count}, time_limit={time_limit}) as decoder:\n"
        f"    for result in decoder.decode_all([({str(video)!r}, None, None)] * {count}): print(result.reason)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        yield parent
    finally:
        parent.kill()
        parent.communicate()


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_the_kernel_ends_a_hanging_worker_whose_parent_does_nothing(tmp_path, video):
    hanging = tmp_path / "hang_in_c.mp4"
    hanging.write_bytes(video.read_bytes())
    with parent_of_hanging_workers(hanging, count=1, time_limit=3.0) as parent:
        assert wait_for(Path(f"{hanging}.begun").exists)
        (worker,) = children_of(parent.pid)
        parent.send_signal(signal.SIGSTOP)
        assert wait_for(lambda: not is_running(worker))
        parent.send_signal(signal.SIGCONT)
        told, _ = parent.communicate(timeout=30)
    assert told == "timeout: not decoded within 3 s\n"


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_killed_parent_leaves_no_orphans(tmp_path, video):
    hanging = tmp_path / "hang_in_c.mp4"
    hanging.write_bytes(video.read_bytes())
    with parent_of_hanging_workers(hanging, count=2, time_limit=60.0) as parent:
        assert wait_for(lambda: len(children_of(parent.pid)) == 2 and Path(f"{hanging}.begun").exists())
        workers = children_of(parent.pid)
        time.sleep(1.0)  # both are in their hang
        assert all(map(is_running, workers))
    assert wait_for(lambda: not any(map(is_running, workers)))


def test_the_pool_leaves_no_processes_and_starts_only_what_it_needs(video):
    before = set(children_of(os.getpid()))
    with VideoDecoder(num_frames=2, workers=2) as decoder:
        decoder.decode(video)
        assert len(set(children_of(os.getpid())) - before) == 1
        results = decoder.decode_all(whole([video] * 20))
        next(results)
        results.close()  # a caller that stops listening
        assert [read_number(frame) for frame in decoder.decode(video)] == [12, 37]
    assert set(children_of(os.getpid())) <= before


def test_a_worker_that_cannot_start_is_said_so(video, monkeypatch):
    monkeypatch.setattr(pool, "WORKER_COMMAND", (sys.executable, "-c", "import nothing_of_that_name"))
    with VideoDecoder() as decoder, pytest.raises(Exception, match="a decoder process ends when it starts") as caught:
        decoder.decode(video)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("signal_name", "times", "status"), [("KILL", 2, None), ("TERM", 2, None), ("TERM", 3, -15)])
def test_a_worker_killed_while_it_starts_is_replaced(tmp_path, video, monkeypatch, signal_name, times, status):
    """By a wrapper that ends itself instead of starting the worker, the first few times."""
    wrapper = f"""
        echo >> {tmp_path}/starts
        if [ $(wc -l < {tmp_path}/starts) -le {times} ]; then kill -{signal_name} $$; fi
        exec "$0" -m data_pipeline.decode.worker "$@"
    """
    monkeypatch.setattr(pool, "WORKER_COMMAND", ("/bin/sh", "-c", wrapper, sys.executable))
    with VideoDecoder(num_frames=2) as decoder:
        if status is None:
            assert [read_number(frame) for frame in decoder.decode(video)] == [12, 37]
        else:
            with pytest.raises(HarvestError, match=rf"a decoder process ends when it starts \(status {status}\)"):
                decoder.decode(video)
    assert len((tmp_path / "starts").read_text().splitlines()) == 3


def test_a_worker_that_is_terminated_twice_ends_the_run_and_rejects_nothing(tmp_path, video, sabotage):
    (tmp_path / "ended.mp4").write_bytes(video.read_bytes())
    with VideoDecoder(num_frames=2) as decoder, pytest.raises(HarvestError, match=r"SIGTERM.*goes on later") as caught:
        decoder.decode(tmp_path / "ended.mp4")
    assert not isinstance(caught.value, VideoRejected)


def test_few_results_wait_for_a_slow_clip_where_each_is_large(tmp_path, sabotage):
    """While the first hangs, the other worker may finish 2 x 16 clips; of 4 views and 3 crops, each counts as 12."""
    video = write_video(tmp_path / "a.mp4", numbered_frames(4))
    taken = []

    def spans():
        for path in [tmp_path / "hang.mp4", *[video] * 50]:
            taken.append(path)
            yield path, None, None

    with VideoDecoder(num_frames=2, workers=2, time_limit=3.0, sampling=Sampling(views=4, crops=3)) as decoder:
        clips = decoder.decode_views(spans())
        assert isinstance(next(clips), VideoRejected)
        assert len(taken) == 2
        assert len(list(clips)) == 50
