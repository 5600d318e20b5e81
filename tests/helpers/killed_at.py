"""Run `harvest ARGUMENTS` in this process and kill it with SIGKILL when a certain file operation begins.

python -m tests.helpers.killed_at EVENT NUMBER FOLDER ARGUMENTS...

EVENT is "write" (a file is opened for writing) or "rename". The process is killed at the NUMBER-th one, from 1, of the
operations below FOLDER. The operations are those that Python reports to audit hooks, before they take place.
"""

import os
import signal
import sys


def main() -> int:
    """Never returns if the operation takes place."""
    event, number, folder, *arguments = sys.argv[1:]
    left = int(number)

    def hook(name: str, details: tuple[object, ...]) -> None:
        nonlocal left
        if event == "write":
            fits = name == "open" and isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR)
        else:
            fits = name == "os.rename"
        if fits and str(details[0]).startswith(folder):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    from harvest_jax.cli import main as harvest

    return harvest(arguments)


if __name__ == "__main__":
    sys.exit(main())
