"""`launch.submit`: what each kind of cluster is given.

Files fit the clusters' schemas, and what runs on the hosts in the end is `harvest train` with the given arguments.
"""

import copy
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harvest_jax.config import run as run_config
from launch import restarts, submit
from tests.helpers.launchers import ROOT

TRAIN = [
    *("--config", "base"),
    *("--workdir", "/shared/runs/a b; $(HOME) 'c' \"d\" \\ <é>"),
    *("--config.data.shards=/shared/my shards", "--config.seed=7"),
]
OPTIONS = [
    *("--nodes", "3", "--slices", "2", "--restarts", "9", "--spot", "--image", "registry/harvest:1"),
    *("--volume", "the-volume", "--accelerator", "v6e-16", "--topology", "4x4", "--zone", "z", "--cluster", "c"),
]


def submitted(backend, capsys, *more, train=TRAIN):
    """(documents of the file, the command) of a dry run."""
    assert submit.main(["--backend", backend, "--dry_run", *OPTIONS, *more, "--", *train]) == 0
    text, _, command = capsys.readouterr().out.rstrip("\n").rpartition("\n")
    return list(yaml.safe_load_all(text)) if text else [], shlex.split(command.removeprefix("# "))


def check_on_host(words):
    """The words of a container or a host: restarts by the one policy around the training of `TRAIN`."""
    split = words.index("harvest")
    own = words[:split]
    assert own[-3:] == ["--restarts", "9", "--"]
    assert own[:-3] == ["python", "-m", "harvest_jax.launch.restarts"]
    check_training(words[split:])


def check_training(words):
    assert words[:2] == ["harvest", "train"]
    assert words[2:] == [*TRAIN, "--config.distributed=true"]
    overrides = [word.removeprefix("--config.") for word in words if word.startswith("--config.")]
    checked = run_config.load("base", overrides)
    assert (checked.distributed, checked.seed, checked.data.shards) == (True, 7, "/shared/my shards")


def container_of(job):
    (container,) = job["template"]["spec"]["containers"]
    return container


def check_job(job, resource):
    """What a Job's spec holds in both forms of Kubernetes."""
    assert job["completions"] == job["parallelism"] == 3
    rules = job["podFailurePolicy"]["rules"]
    assert rules[0]["action"] == "FailJob"
    assert set(rules[0]["onExitCodes"]["values"]) == restarts.FINAL
    assert set(rules[1]["onExitCodes"]["values"]) == restarts.STOPPED
    container = container_of(job)
    assert rules[0]["onExitCodes"]["containerName"] == container["name"]
    assert container["resources"]["limits"] == {resource: 8}
    # Kubernetes reads $$( as $(.
    check_on_host([word.replace("$$(", "$(") for word in container["args"]])
    assert job["template"]["spec"]["terminationGracePeriodSeconds"] >= 120


def check_schema(document):
    """Against the schemas of the newest Kubernetes that the package has; unknown fields are errors."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_kubernetes_gets_a_service_and_an_indexed_job(capsys):
    (service, job), command = submitted("kubernetes", capsys)
    assert command == ["kubectl", "apply", "-f", "harvest.yaml"]
    check_job(job["spec"], "nvidia.com/gpu")
    environment = {one["name"]: one.get("value") for one in container_of(job["spec"])["env"]}
    assert environment["HARVEST_NUM_PROCESSES"] == "3"
    host, _, subdomain = environment["HARVEST_COORDINATOR"].partition(":")[0].partition(".")
    assert host == f"{job['metadata']['name']}-0"
    assert subdomain == service["metadata"]["name"] == job["spec"]["template"]["spec"]["subdomain"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    check_schema(service)
    check_schema(job)


def test_gke_gets_a_jobset_with_a_job_for_each_slice(capsys):
    (jobset,), command = submitted("jobset", capsys)
    assert command[0] == "kubectl"
    (slices,) = jobset["spec"]["replicatedJobs"]
    assert slices["replicas"] == 2
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 9
    check_job(slices["template"]["spec"], "google.com/tpu")
    selector = slices["template"]["spec"]["template"]["spec"]["nodeSelector"]
    assert selector["cloud.google.com/gke-tpu-topology"] == "4x4"
    assert selector["cloud.google.com/gke-spot"] == "true"
    metadata = {"metadata": {"name": "one"}}
    check_schema({"apiVersion": "batch/v1", "kind": "Job", **metadata, **copy.deepcopy(slices["template"])})


def test_a_schema_refuses_what_it_does_not_know(capsys):
    (_, job), _ = submitted("kubernetes", capsys)
    job["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["valuez"] = [1]
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    with pytest.raises(kubernetes_validate.ValidationError):
        check_schema(job)


def test_skypilot_gets_a_managed_job_that_recovers_from_stops_alone(capsys):
    (task,), command = submitted("skypilot", capsys)
    assert command == ["sky", "jobs", "launch", "--yes", "harvest.yaml"]
    assert task["num_nodes"] == 3
    assert task["resources"]["use_spot"] is True
    assert task["resources"]["image_id"] == "docker:registry/harvest:1"
    recovery = task["resources"]["job_recovery"]
    assert recovery["max_restarts_on_errors"] == 0
    assert set(recovery["recover_on_exit_codes"]) == restarts.STOPPED
    assert task["volumes"] == {"/shared": "the-volume"}
    words, variables = run_by_bash(task["run"], SKYPILOT_NODE_IPS="10.0.0.1\n10.0.0.2", SKYPILOT_NUM_NODES="2")
    check_on_host(["python", *words])
    assert variables["HARVEST_COORDINATOR"].startswith("10.0.0.1:")
    assert (variables["HARVEST_NUM_PROCESSES"], variables["HARVEST_PROCESS_ID"]) == ("2", "1")


def run_by_bash(script, **environment):
    """(arguments, environment) that a shell gives `python` in a script."""
    show = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"
    function = f'python() {{ {shlex.quote(sys.executable)} -c {shlex.quote(show)} "$@"; }}'
    done = subprocess.run(
        ["bash", "-euc", f"{function}\n{script}"],
        env={"SKYPILOT_NODE_RANK": "1", "PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_xpk_gets_the_command_of_a_container(capsys):
    file, command = submitted("xpk", capsys)
    assert file == []
    assert command[:3] == ["xpk", "workload", "create"]
    assert command[command.index("--max-restarts") + 1] == "9"
    words, _ = run_by_bash(command[command.index("--command") + 1])
    check_on_host(["python", *words])


def test_slurm_local_and_tpu_vms_get_their_own_launchers(capsys, tmp_path):
    train = ["--config", "configs/base.py", "--workdir", "a b", "--config.data.shards=my shards", "--config.seed=7"]
    _, slurm = submitted("slurm", capsys, "--extra=--time=4:00 --comment='two words'", train=train)
    assert slurm[0] == "sbatch"
    assert {"--nodes=3", "--gpus-per-node=8", "--time=4:00", "--comment=two words"} <= set(slurm)
    assert slurm[slurm.index(str(ROOT / "launch/slurm.sbatch")) + 1 :] == train
    _, local = submitted("local", capsys, train=train)
    assert local[1:3] == ["-m", "launch.local"]
    assert local[local.index("--") + 1 :] == train
    assert local[local.index("--restarts") + 1] == "9"
    _, tpu = submitted("tpu_vm", capsys, train=train)
    assert tpu[0] == str(ROOT / "launch/tpu_vm.sh")
    assert {"--queued", "--spot"} <= set(tpu)
    assert tpu[tpu.index("--") + 1 :] == train
    printed = subprocess.run([*tpu[: -len(train) - 1], "--dry_run", "--", *train], capture_output=True, text=True)
    assert "queued-resources create harvest" in printed.stdout


def test_without_dry_run_the_program_takes_the_file(stubs, monkeypatch, capsys):
    for name, value in stubs.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STUB_STATUS", "5")
    assert submit.main(["--backend", "kubernetes", *OPTIONS, "--", *TRAIN]) == 5
    ((program, apply, flag, file),) = stubs.calls()
    assert (program, apply, flag) == ("kubectl", "apply", "-f")
    assert not Path(file).exists()  # it was there for as long as kubectl ran


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--backend kubernetes --image i -- --config base --workdir /shared/w", "needs --volume"),
        ("--backend slurm --name A_b -- --config base --workdir w", "--name A_b"),
        ("--backend slurm -- --config base --workdir w --config.seeed=1", "did you mean seed"),
        ("--backend slurm -- --config nosuch --workdir w", "nosuch"),
        ("--backend jobset {} -- --config base --workdir runs/w", "is not below /shared"),
        ("--backend jobset {} -- --config configs/base.py --workdir /shared/w", "--config configs/base.py"),
    ],
)
def test_mistakes_start_nothing(words, message, stubs, monkeypatch, capsys):
    for name, value in stubs.environment.items():
        monkeypatch.setenv(name, value)
    assert submit.main(shlex.split(words.format(shlex.join(OPTIONS)))) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert stubs.calls() == []


def test_every_backend_is_in_the_table_of_the_page():
    table = (ROOT / "launch/README.md").read_text()
    for backend in submit.BACKENDS:
        assert re.search(rf"`--backend {backend}\b", table), backend
