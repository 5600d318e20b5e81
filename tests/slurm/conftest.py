"""A Slurm cluster of two nodes on this machine: controller, two daemons and munge, all of this session alone.

Needs root and Debian's packages: apt-get install slurm-wlm munge. For as long as the tests run, /etc/hosts gives the
nodes' names (n0, n1) the loopback address: processes find each other by them.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel")
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=120
MinJobAge=86400
SlurmdParameters=config_overrides
NodeName=n[0-1] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[2]}] CPUs=8 RealMemory=16000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    assert not missing, f"no {', '.join(missing)}: apt-get install slurm-wlm munge"
    assert os.geteuid() == 0, "a cluster on one machine needs root"
    root = tmp_path_factory.mktemp("slurm")
    for folder in (root, *root.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o755)  # munge refuses a socket that not everyone can reach
    for name in ("state", "spool/n0", "spool/n1"):
        (root / name).mkdir(parents=True)
    (root / "munge.key").write_bytes(os.urandom(1024))
    (root / "munge.key").chmod(0o400)
    (root / "slurm.conf").write_text(
        CONFIG.format(root=root, host=socket.gethostname().split(".")[0], ports=free_ports())
    )
    hosts = Path("/etc/hosts").read_text()
    environment = os.environ | {"SLURM_CONF": str(root / "slurm.conf")}
    for name in [name for name in environment if name.startswith(("SLURM_", "SBATCH_")) and name != "SLURM_CONF"]:
        del environment[name]
    files = {name: f"--{name}-file={root}/munged.{name}" for name in ("pid", "log", "seed")}
    daemons = [
        ["munged", "--force", f"--socket={root}/munge.socket", f"--key-file={root}/munge.key", *files.values()],
        ["slurmctld", "-c"],
        ["slurmd", "-N", "n0"],
        ["slurmd", "-N", "n1"],
    ]
    found = Cluster(environment)
    try:
        if not {"n0", "n1"} <= {word for line in hosts.splitlines() for word in line.partition("#")[0].split()[1:]}:
            Path("/etc/hosts").write_text(f"{hosts.rstrip()}\n127.0.0.1 n0 n1\n")
        for daemon in daemons:
            subprocess.run(daemon, env=environment, check=True)
        found.wait(lambda: found.ask("sinfo", "-h", "-o", "%T %D").split() == ["idle", "2"], 120)
        yield found
        found.ask("scancel", "--user=root")
        found.wait(lambda: not found.ask("squeue", "-h", "-t", "running,completing"), 330)
    finally:
        for file in (*root.glob("slurmd-*.pid"), root / "slurmctld.pid", root / "munged.pid"):
            if file.exists():
                os.kill(int(file.read_text()), signal.SIGTERM)
        time.sleep(1)
        Path("/etc/hosts").write_text(hosts)


def free_ports():
    """Three free ports in a row."""
    for first in range(17000, 18000, 3):
        try:
            with socket.socket() as one, socket.socket() as two, socket.socket() as three:
                for number, listener in enumerate((one, two, three)):
                    listener.bind(("", first + number))
            return range(first, first + 3)
        except OSError:
            continue
    raise OSError("no free ports")
