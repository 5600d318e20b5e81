"""The cluster of a run, as the environment describes it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harvest_jax.errors import ConfigError
from harvest_jax.train.distributed import cluster_settings

ROOT = Path(__file__).resolve().parents[2]


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
