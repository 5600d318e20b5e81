"""Jobs on the cluster of conftest.py: submitting, asking, waiting, and finding their processes."""

import dataclasses
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.helpers.launchers import ROOT

SECONDS = int(os.environ.get("HARVEST_TEST_SECONDS", "900"))  # for what takes one training; a busy machine needs more
ONE_PROCESS_A_NODE = ["--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=0", "--cpus-per-task=1", "--mem=1500"]


@dataclasses.dataclass
class Cluster:
    """The environment in which Slurm's programs find the cluster."""

    environment: dict[str, str]

    def ask(self, *command: str) -> str:
        """Standard output of one of Slurm's programs."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout.strip()

    def hurry(self, job: str) -> None:
        """Spare a requeued job Slurm's two minutes; refused while the job's last attempt is still ending."""
        command = ["scontrol", "update", f"jobid={job}", "StartTime=now"]
        subprocess.run(command, env=self.environment, capture_output=True, check=False)

    def submit(self, folder: Path, program: str, arguments: list[str], *options: str) -> "Job":
        """`sbatch launch/slurm.sbatch` with this text as the program `harvest`; the log is `folder/log`."""
        folder.mkdir(parents=True, exist_ok=True)
        harvest = folder / "harvest"
        harvest.write_text(program)
        harvest.chmod(0o755)
        environment = self.environment | {
            "HARVEST": str(harvest),
            "HARVEST_PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "",
        }
        sizes = [*ONE_PROCESS_A_NODE, "--time=120", f"--output={folder}/log"]
        command = ["sbatch", "--parsable", *sizes, *options, "launch/slurm.sbatch", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        return Job(self, done.stdout.strip(), folder / "log")

    def wait(self, condition: Callable[[], object], seconds: float = SECONDS) -> None:
        """Poll until the condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.3)


@dataclasses.dataclass
class Job:
    """One job and its log."""

    cluster: Cluster
    id: str
    file: Path

    @property
    def log(self) -> str:
        """What it printed so far, in all attempts."""
        return self.file.read_text() if self.file.exists() else ""

    def field(self, name: str) -> str:
        """Of `scontrol show job`."""
        shown = self.cluster.ask("scontrol", "show", "job", "--oneliner", self.id)
        found = re.search(rf"\b{name}=(\S*)", shown)
        return found[1] if found else ""

    def wait_for(self, *states: str) -> None:
        """Until the job is in one of these states."""

        def there() -> bool:
            state = self.field("JobState")
            if state == "PENDING" and self.field("Restarts") != "0":
                self.cluster.hurry(self.id)
            return state in states

        try:
            self.cluster.wait(there)
        except AssertionError as error:
            raise AssertionError(f"{self.field('JobState')}\n{self.log}") from error

    def processes(self, rank: int | None = None) -> list[int]:
        """Process ids of the job's Python processes (of one rank), wherever their parents are."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                variables = (folder / "environ").read_bytes().split(b"\0")
                program = (folder / "cmdline").read_bytes().split(b"\0")[0]
            except OSError:
                continue
            own = f"SLURM_JOB_ID={self.id}".encode() in variables
            ranked = rank is None or f"SLURM_PROCID={rank}".encode() in variables
            if own and ranked and b"python" in program:
                found.append(int(folder.name))
        return found
