"""Stand-ins for the programs that the shell scripts call."""

import json
import os
import sys

import pytest

RECORD = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["RECORD"], "a") as file:
    file.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
print(os.environ.get("STUB_PRINTS_" + os.path.basename(sys.argv[0]), ""))
sys.exit(int(os.environ.get("STUB_STATUS", "0")))
"""


@pytest.fixture
def stubs(tmp_path):
    """A folder of programs that only write down how they were called; `calls()` reads it."""
    folder = tmp_path / "stub programs"
    folder.mkdir()
    for name in ("srun", "scontrol", "sbatch", "gcloud", "kubectl", "sky", "xpk", "harvest"):
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
