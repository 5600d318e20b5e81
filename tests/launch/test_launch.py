"""The launchers: what they would run, what they run (with stubs for srun and gcloud), and what they do on failure."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harvest_jax.config import run as run_config
from harvest_jax.errors import ConfigError, Preempted
from harvest_jax.train.distributed import cluster_settings

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [ROOT / "launch/slurm.sbatch", ROOT / "launch/tpu_vm.sh", ROOT / ".ci/run"]
SAVED = Preempted.exit_code  # slurm.sbatch has the number itself
TRAIN = ["--config", "configs/base.py", "--workdir", "runs/a b; c", "--config.data.shards=my shards", "--config.seed=7"]

RECORD = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["RECORD"], "a") as file:
    file.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
sys.exit(int(os.environ.get("STUB_STATUS", "0")))
"""


def run(*command, timeout=60, **environment):
    return subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def local(*arguments, **kwargs):
    return run(sys.executable, "-m", "launch.local", *arguments, **kwargs)


@pytest.fixture
def stubs(tmp_path):
    """A folder of programs that only write down how they were called; `calls()` reads it."""
    folder = tmp_path / "stub programs"
    folder.mkdir()
    for name in ("srun", "scontrol", "gcloud", "harvest"):
        (folder / name).write_text(RECORD)
        (folder / name).chmod(0o755)
    record = tmp_path / "calls.jsonl"

    class Stubs:
        path = folder
        environment = {"PATH": f"{folder}:{os.environ['PATH']}", "RECORD": str(record)}  # noqa: RUF012

        @staticmethod
        def calls():
            return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []

    return Stubs


def check_train_arguments(words):
    """The words are those of TRAIN in any order plus distributed=true, and the config accepts the overrides."""
    assert sorted(words) == sorted([*TRAIN, "--config.distributed=true"])
    overrides = [word.removeprefix("--config.") for word in words if word.startswith("--config.")]
    checked = run_config.load(words[words.index("--config") + 1], overrides)
    assert checked.distributed
    assert checked.seed == 7
    assert checked.data.shards == "my shards"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_are_sound(script):
    assert run("bash", "-n", script).returncode == 0
    assert os.access(script, os.X_OK)
    if shutil.which("shellcheck"):
        checked = run("shellcheck", script)
        assert checked.returncode == 0, checked.stdout


# ---- cluster ----------------------------------------------------------------------------------------------------


def test_cluster_settings_from_the_environment():
    assert cluster_settings({}).coordinator is None
    cluster = cluster_settings(
        {
            "HARVEST_COORDINATOR": "127.0.0.1:1234",
            "HARVEST_NUM_PROCESSES": "4",
            "HARVEST_PROCESS_ID": "3",
            "HARVEST_LOCAL_DEVICES": "6,7",
            "HARVEST_HEARTBEAT_SECONDS": "9",
        }
    )
    assert (cluster.num_processes, cluster.process_id, cluster.local_devices) == (4, 3, (6, 7))
    assert (cluster.heartbeat_seconds, cluster.initialization_seconds) == (9, 300)


@pytest.mark.parametrize(
    ("coordinator", "on_loopback"),
    [("127.0.0.1:1", True), ("localhost:1", True), ("[::1]:1", True), ("10.0.0.1:1", False), ("node0:1", False)],
)
def test_only_loopback_is_loopback(coordinator, on_loopback):
    variables = {"HARVEST_COORDINATOR": coordinator, "HARVEST_NUM_PROCESSES": "1", "HARVEST_PROCESS_ID": "0"}
    assert cluster_settings(variables).on_loopback == on_loopback


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"HARVEST_PROCESS_ID": ""}, "without HARVEST_PROCESS_ID"),
        ({"HARVEST_COORDINATOR": "node0"}, "host:port"),
        ({"HARVEST_COORDINATOR": "node0:70000"}, "host:port"),
        ({"HARVEST_PROCESS_ID": "2"}, "below HARVEST_NUM_PROCESSES=2"),
        ({"HARVEST_NUM_PROCESSES": "two"}, "whole number"),
        ({"HARVEST_NUM_PROCESSES": "0"}, "from 1"),
        ({"HARVEST_LOCAL_DEVICES": "0;1"}, "commas"),
        ({"HARVEST_HEARTBEAT_SECONDS": "0"}, "from 1"),
    ],
)
def test_mistakes_in_cluster_settings(changed, message):
    good = {"HARVEST_COORDINATOR": "node0:1234", "HARVEST_NUM_PROCESSES": "2", "HARVEST_PROCESS_ID": "1"}
    with pytest.raises(ConfigError, match=message):
        cluster_settings(good | changed)


def test_no_cluster_is_a_plain_error():
    code = """
from harvest_jax.errors import ConfigError, Preempted
from harvest_jax.train.distributed import initialize_from_environment
try:
    initialize_from_environment()
except ConfigError as error:
    print(error)
"""
    found = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "OMPI_"))}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=found, capture_output=True, text=True, check=True)
    assert "no cluster was recognised" in done.stdout


# ---- launch.local -----------------------------------------------------------------------------------------------


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


def script_for(tmp_path, body):
    """A program without jax; `rank` and `workdir` (its --workdir) are defined."""
    script = tmp_path / "program.py"
    head = 'import os, pathlib, signal, subprocess, sys, time\nrank = int(os.environ["HARVEST_PROCESS_ID"])\n'
    script.write_text(f"{head}workdir = pathlib.Path(sys.argv[sys.argv.index('--workdir') + 1])\n{body}")
    return ["--script", script, "--grace", "1", "--", "--workdir", tmp_path]


def gone(pid):
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


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
    assert all(gone(pid) for pid in (tmp_path / "pids").read_text().split())


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
    write_digests(steps / str(done + 10), {})
    sys.exit(1)
time.sleep(60)
""",
    )
    done = local("--restarts", "5", *options)
    assert done.returncode == 0, done.stderr
    restarts = [line for line in done.stderr.splitlines() if "restart" in line]
    assert restarts == [f"[launch] restart {n} of 5 from step {10 * n}" for n in (1, 2, 3)]


@pytest.mark.parametrize(("status", "attempts"), [(1, 2), (2, 1), (4, 1), (42, 1)])
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
    assert all(gone(pid) for pid in pids)


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel for it")
def test_ranks_do_not_outlive_a_killed_launcher(tmp_path):
    launcher, pids = started(tmp_path, script_for(tmp_path, SAVES_WHEN_ASKED))
    launcher.kill()
    launcher.communicate(timeout=20)
    assert all(gone(pid) for pid in pids)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--processes", "0"], "at least 1"), (["--script", "no such.py"], "no file"), (["--proc", "2"], "unrecognized")],
)
def test_local_mistakes(arguments, message):
    done = local(*arguments, "--", *TRAIN)
    assert done.returncode == 2
    assert message in done.stderr


# ---- Slurm ------------------------------------------------------------------------------------------------------


def test_slurm_runs_what_its_dry_run_prints(stubs):
    environment = stubs.environment | {"HARVEST": str(stubs.path / "harvest")}
    printed = run("bash", "launch/slurm.sbatch", "--dry_run", *TRAIN, **environment)
    assert printed.returncode == 0
    assert stubs.calls() == []
    done = run("bash", "launch/slurm.sbatch", *TRAIN, **environment)
    assert done.returncode == 0, done.stderr
    (call,) = stubs.calls()
    assert call == shlex.split(printed.stdout)
    start = call.index(str(stubs.path / "harvest"))
    assert call[start + 1] == "train"
    check_train_arguments(call[start + 2 :])


def test_a_saved_slurm_job_goes_back_into_the_queue(stubs):
    environment = stubs.environment | {"HARVEST": str(stubs.path / "harvest"), "SLURM_JOB_ID": "17"}
    assert run("bash", "launch/slurm.sbatch", *TRAIN, **environment, STUB_STATUS=str(SAVED)).returncode == SAVED
    assert stubs.calls()[1:] == [["scontrol", "requeue", "17"]]
    assert run("bash", "launch/slurm.sbatch", *TRAIN, **environment, STUB_STATUS="4").returncode == 4
    assert len(stubs.calls()) == 3


def test_slurm_waits_through_its_own_sigterm(stubs, tmp_path):
    (stubs.path / "srun").write_text(f"#!/bin/bash\ntouch '{tmp_path}/started'\nsleep 0.5\nexit 42\n")
    environment = os.environ | stubs.environment | {"HARVEST": str(stubs.path / "harvest"), "SLURM_JOB_ID": "17"}
    job = subprocess.Popen(
        ["bash", "launch/slurm.sbatch", *TRAIN], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
    )
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    job.terminate()
    assert job.wait(timeout=20) == 42
    assert stubs.calls() == [["scontrol", "requeue", "17"]]


def test_slurm_mistakes(stubs, tmp_path):
    assert run("bash", "launch/slurm.sbatch").returncode == 2
    done = run("bash", "launch/slurm.sbatch", *TRAIN, **stubs.environment, HARVEST=str(tmp_path / "none"))
    assert done.returncode == 2
    assert "no program" in done.stderr
    assert stubs.calls() == []


# ---- TPU --------------------------------------------------------------------------------------------------------

WHERE = ["--name", "my-tpu", "--zone", "us-central1-a", "--project", "my-project"]


def test_tpu_runs_what_its_dry_run_prints(stubs, tmp_path):
    options = [*WHERE, "--type", "v5litepod-16", "--spot", "--steps", "create,train,delete"]
    printed = run("launch/tpu_vm.sh", *options, "--dry_run", "--", *TRAIN, **stubs.environment)
    assert printed.returncode == 0, printed.stderr
    assert stubs.calls() == []
    done = run("launch/tpu_vm.sh", *options, "--", *TRAIN, **stubs.environment)
    assert done.returncode == 0, done.stderr
    create, train, delete = calls = stubs.calls()
    assert calls == [shlex.split(line) for line in printed.stdout.splitlines()]
    assert create[4:6] == ["create", "my-tpu"]
    assert create[create.index("--version") + 1] == "v2-alpha-tpuv5-lite"
    assert "--spot" in create
    assert delete[4:6] == ["delete", "my-tpu"]
    assert train[4:6] == ["ssh", "my-tpu"]
    assert "--worker=all" in train

    # What ssh hands to each host's shell reaches the program word by word.
    (tmp_path / "harvest_jax/.venv/bin").mkdir(parents=True)
    shutil.copy(stubs.path / "harvest", tmp_path / "harvest_jax/.venv/bin/harvest")
    remote = train[train.index("--command") + 1]
    subprocess.run(["bash", "-c", remote], cwd=tmp_path, env=os.environ | stubs.environment, check=True)
    program, command, *words = stubs.calls()[-1]
    assert (program, command) == ("harvest", "train")
    check_train_arguments(words)


def test_tpu_copies_the_commit_and_the_setup_to_every_host(stubs, tmp_path):
    setup = tmp_path / "mount it.sh"
    setup.write_text("true\n")
    options = [*WHERE, "--steps", "copy", "--setup", setup, "--dry_run"]
    done = run("launch/tpu_vm.sh", *options, **stubs.environment)
    archive, send, install, send_setup, run_setup = (words for words in split_lines(done.stdout))
    assert archive[:2] == ["git", "-C"]
    assert archive[-1] == "HEAD"
    assert send[4:7] == ["scp", archive[archive.index("--output") + 1], "my-tpu:harvest_jax.tar.gz"]
    assert subprocess.run(["bash", "-n", "-c", install[-1]], check=False).returncode == 0
    assert '-c constraints.txt -e ".[tpu]"' in install[-1]
    assert send_setup[5] == str(setup)
    assert run_setup[-1] == "bash harvest_setup.sh"


def split_lines(text):
    """Shell lines to words; a quoted word may hold line breaks ($'...\\n...'), which bash itself has to read."""
    shell = f"set -- {{}}; {sys.executable} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' \"$@\""
    for line in text.splitlines():
        done = subprocess.run(["bash", "-c", shell.format(line)], capture_output=True, text=True, check=True)
        yield json.loads(done.stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "train", "--", *TRAIN], "--name and --zone"),
        ([*WHERE, "--", *TRAIN], "--type is needed"),
        ([*WHERE, "--steps", "train"], "after --"),
        ([*WHERE, "--steps", "trian", "--", *TRAIN], "none of create"),
        ([*WHERE, "--setup", "no such.sh", "--steps", "train", "--", *TRAIN], "no file"),
        ([*WHERE, "--config", "x"], "unknown option --config"),
        (["--name"], "needs a value"),
    ],
)
def test_tpu_mistakes(stubs, arguments, message):
    done = run("launch/tpu_vm.sh", *arguments, **stubs.environment)
    assert done.returncode == 2
    assert message in done.stderr
    assert stubs.calls() == []
