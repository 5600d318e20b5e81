"""`launch.local`: processes of one run on one machine, what ends them, and restarts."""

import shlex
import signal
import subprocess
import sys
import time

import pytest

from harvest_jax.checkpoint.digests import write_digests
from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.train.distributed import cluster_settings
from tests.helpers.launchers import ROOT, TRAIN, check_train_arguments, run
from tests.helpers.processes import is_running, wait_until


def local(*arguments, **kwargs):
    return run(sys.executable, "-m", "launch.local", *arguments, **kwargs)


def test_local_dry_run_prints_the_commands():
    done = local("--processes", "3", "--devices", "2", "--port", "4567", "--dry_run", "--", *TRAIN)
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    assert len(lines) == 3
    for rank, words in enumerate(lines):
        start = words.index(sys.executable)
        variables = dict(word.split("=", 1) for word in words[1:start])
        cluster = cluster_settings(variables)
        assert (cluster.coordinator, cluster.num_processes, cluster.process_id) == ("127.0.0.1:4567", 3, rank)
        assert variables["JAX_PLATFORMS"] == "cpu"
        assert variables["XLA_FLAGS"].count("device_count=") == 1
        assert variables["XLA_FLAGS"].endswith("device_count=2")
        assert words[start + 1 : start + 4] == ["-m", "harvest_jax", "train"]
        check_train_arguments(words[start + 4 :])


def test_local_dry_run_gives_each_gpu_to_one_process():
    done = local("--processes", "2", "--devices", "2", "--platform", "gpu", "--dry_run", "--", *TRAIN)
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    variables = [dict(word.split("=", 1) for word in words[1 : words.index(sys.executable)]) for words in lines]
    assert [cluster_settings(found).local_devices for found in variables] == [(0, 1), (2, 3)]
    assert {found["JAX_PLATFORMS"] for found in variables} == {"cuda"}


ALL_REDUCE = """
import sys
from harvest_jax.train.distributed import failing_together, initialize_from_environment
initialize_from_environment()
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from harvest_jax.errors import DataError
mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
count = jax.local_device_count()
mine = np.arange(count, dtype=np.float32) + jax.process_index() * count
x = jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec("data")), mine)
total = jax.jit(lambda x: x.sum(), out_shardings=NamedSharding(mesh, PartitionSpec()))
print("sum", float(total(x)), "of", jax.device_count(), "devices in", jax.process_count(), "processes")
if sys.argv[1:] == ["fail"]:
    with failing_together():
        if jax.process_index() == 1:
            raise DataError("a clip that only rank 1 has")
        total(x).block_until_ready()  # rank 1 never comes
"""


def test_two_processes_of_two_devices_reduce_together(tmp_path):
    script = tmp_path / "all reduce.py"
    script.write_text(ALL_REDUCE)
    done = local("--processes", "2", "--devices", "2", "--script", script)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "sum" in line]
    assert sorted(lines) == [f"[{rank}] sum 6.0 of 4 devices in 2 processes" for rank in (0, 1)]
    assert "[launch] all ranks finished" in done.stderr


def test_an_error_in_one_rank_ends_the_run_while_the_other_waits_for_it(tmp_path):
    script = tmp_path / "all_reduce.py"
    script.write_text(ALL_REDUCE)
    done = local("--processes", "2", "--grace", "1", "--script", script, "--", "fail")
    assert done.returncode == 3, done.stderr
    assert "rank 1 ended with status 3, the first to fail" in done.stderr
    assert "[1] harvest_jax.errors.DataError: a clip that only rank 1 has" in done.stderr


ENDLESS = """
import os, signal, sys, time
from harvest_jax.train.distributed import failing_together, initialize_from_environment
initialize_from_environment()
with failing_together():
    if os.environ["HARVEST_PROCESS_ID"] == "0":
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_killed_rank_0_is_two_lines_and_no_page_of_stack_frames(tmp_path):
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    done = local("--script", script, timeout=120)
    assert done.returncode == 137, done.stderr
    assert "[launch] rank 0 was killed by SIGKILL, the first to fail" in done.stderr
    assert "stack trace" not in done.stderr
    assert " @ " not in done.stderr


def script_for(tmp_path, body):
    """A program without jax; `rank` and `workdir` (its --workdir) are defined."""
    script = tmp_path / "program.py"
    head = 'import os, pathlib, signal, subprocess, sys, time\nrank = int(os.environ["HARVEST_PROCESS_ID"])\n'
    script.write_text(f"{head}workdir = pathlib.Path(sys.argv[sys.argv.index('--workdir') + 1])\n{body}")
    return ["--script", script, "--grace", "1", "--", "--workdir", tmp_path]


def all_end(pids):
    wait_until(lambda: not any(is_running(pid) for pid in pids), seconds=20)


def test_a_killed_rank_takes_the_others_and_their_children_with_it(tmp_path):
    options = script_for(
        tmp_path,
        """
if rank == 1:
    while not (workdir / "ready").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # stuck in a collective
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
(workdir / "pids").write_text(f"{os.getpid()} {child.pid}")
(workdir / "ready").touch()
time.sleep(60)
""",
    )
    began = time.monotonic()
    done = local(*options)
    assert done.returncode == 128 + signal.SIGKILL
    assert "rank 1 was killed by SIGKILL, the first to fail" in done.stderr
    assert time.monotonic() - began < 20
    all_end((tmp_path / "pids").read_text().split())


def test_the_cause_is_named_and_not_the_rank_that_died_of_it(tmp_path):
    options = script_for(
        tmp_path,
        """
if rank == 1:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it goes on to its own error
    (workdir / "ready").touch()
wait_for = workdir / ("ready" if rank == 0 else "gone")
while not wait_for.exists():
    time.sleep(0.001)
(workdir / "gone").touch()
sys.exit(1 if rank == 0 else 4)
""",
    )
    done = local(*options)
    assert done.returncode == 4
    assert "rank 1 ended with status 4, the first to fail" in done.stderr


def test_restarts_as_long_as_there_is_progress(tmp_path):
    options = script_for(
        tmp_path,
        """
from harvest_jax.checkpoint.digests import write_digests
steps = workdir / "checkpoints"
done = max((int(path.name) for path in steps.glob("*")), default=0)
if done == 30:
    sys.exit(0)
if rank == 0:
    (steps / str(done + 10)).mkdir(parents=True)
    write_digests(steps / str(done + 10), {"step": done + 10})
    sys.exit(1)
time.sleep(60)
""",
    )
    done = local("--restarts", "5", *options)
    assert done.returncode == 0, done.stderr
    restarts = [line for line in done.stderr.splitlines() if "restart" in line]
    assert restarts == [f"[launch] restart {n} of 5 from step {10 * n}" for n in (1, 2, 3)]


@pytest.mark.parametrize(("status", "attempts"), [(1, 2), (2, 1), (4, 1), (7, 1), (42, 1)])
def test_no_restart_without_progress_or_where_it_cannot_help(tmp_path, status, attempts):
    options = script_for(
        tmp_path, f'print("attempt"); sys.stdout.flush(); sys.exit({status}) if rank == 0 else time.sleep(60)'
    )
    done = local("--processes", "2", "--restarts", "9", *options)
    assert done.returncode == status
    assert done.stdout.count("[0] attempt") == attempts
    assert ("2 attempts in a row without a new checkpoint" in done.stderr) == (attempts == 2)


def started(tmp_path, options):
    launcher = subprocess.Popen(
        [sys.executable, "-m", "launch.local", *map(str, options)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(list(tmp_path.glob("pid-*"))) < 2:
        assert launcher.poll() is None
        time.sleep(0.02)
    return launcher, [path.name.removeprefix("pid-") for path in tmp_path.glob("pid-*")]


SAVES_WHEN_ASKED = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))
(workdir / f"pid-{os.getpid()}").touch()
time.sleep(60)
"""


def test_a_signal_is_handed_on_and_the_ranks_status_comes_back(tmp_path):
    launcher, pids = started(tmp_path, script_for(tmp_path, SAVES_WHEN_ASKED))
    launcher.send_signal(signal.SIGTERM)
    _, errors = launcher.communicate(timeout=20)
    assert launcher.returncode == 42
    assert "[launch] stopped by SIGTERM; status 42" in errors
    all_end(pids)


def test_more_sigterms_do_not_kill_what_saves(tmp_path):
    body = SAVES_WHEN_ASKED.replace("sys.exit(42)", "(time.sleep(1), sys.exit(42))")
    options = script_for(tmp_path, body)
    options[options.index("--grace") + 1] = "20"
    launcher, _ = started(tmp_path, options)
    for _ in range(5):
        launcher.terminate()
        time.sleep(0.1)
    _, errors = launcher.communicate(timeout=40)
    assert launcher.returncode == 42, errors


def test_a_second_interrupt_kills_them(tmp_path):
    options = script_for(tmp_path, SAVES_WHEN_ASKED.replace("lambda *_: sys.exit(42)", "signal.SIG_IGN"))
    options[options.index("--grace") + 1] = "60"
    launcher, pids = started(tmp_path, options)
    for _ in range(2):
        launcher.send_signal(signal.SIGINT)
        time.sleep(0.3)
    launcher.communicate(timeout=40)
    all_end(pids)


def test_what_cannot_be_saved_in_time_is_said(tmp_path):
    ignoring = SAVES_WHEN_ASKED.replace("lambda *_: sys.exit(42)", "signal.SIG_IGN")
    Workdir(tmp_path).step(70).mkdir(parents=True)
    write_digests(Workdir(tmp_path).step(70), {"step": 70})
    launcher, pids = started(tmp_path, script_for(tmp_path, ignoring))
    launcher.send_signal(signal.SIGHUP)
    _, errors = launcher.communicate(timeout=40)
    assert launcher.returncode == 137
    words = "stopped by SIGHUP; status 137: not all had ended after 1 s, and these were killed"
    assert f"[launch] {words}; the newest checkpoint is step 70" in errors
    all_end(pids)


def test_the_cause_that_a_process_wrote_decides_among_equal_statuses(tmp_path):
    options = script_for(
        tmp_path,
        """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if rank == 1:
    with open(os.environ["HARVEST_CAUSE_FILE"], "x") as cause:
        cause.write('{"rank": 1, "status": 3}')
    time.sleep(0.5)
else:
    while not os.path.exists(os.environ["HARVEST_CAUSE_FILE"]):
        time.sleep(0.01)
sys.exit(3)
""",
    )
    done = local(*options)
    assert done.returncode == 3
    assert "rank 1 ended with status 3, the first to fail" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel for it")
def test_ranks_do_not_outlive_a_killed_launcher(tmp_path):
    launcher, pids = started(tmp_path, script_for(tmp_path, SAVES_WHEN_ASKED))
    launcher.kill()
    launcher.communicate(timeout=20)
    all_end(pids)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--processes", "0"], "at least 1"), (["--script", "no such.py"], "no file"), (["--proc", "2"], "unrecognized")],
)
def test_local_mistakes(arguments, message):
    done = local(*arguments, "--", *TRAIN)
    assert done.returncode == 2
    assert message in done.stderr
