# The cell that installs harvest_jax, the same in every notebook: `make notebooks` puts it into each of them.

# %% install
# @title Install harvest_jax, if it is not there
import contextlib
import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

# Where harvest_jax is installed from: a release ("harvest_jax==0.1.0"), a wheel, a folder with the source code, or the
# address of a repository ("git+https://..."). Empty: a wheel in this folder, or the source code around it, or
# PUBLISHED, or on Colab a wheel that you upload here.
SOURCE = os.environ.get("HARVEST_SOURCE", "")
PUBLISHED = ""  # a release or an address, as above


def find_source():
    """What pip installs harvest_jax from."""
    if SOURCE:
        return SOURCE
    if wheels := sorted(Path.cwd().glob("harvest_jax-*-any.whl")):
        return str(wheels[-1])
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "harvest_jax/version.py").is_file():
            return str(folder)
    if PUBLISHED:
        return PUBLISHED
    try:
        from google.colab import files

        print("choose the wheel, harvest_jax-VERSION-py3-none-any.whl")
        uploaded = [name for name in files.upload() if name.endswith(".whl")]
    except ImportError:
        uploaded = []
    if not uploaded:
        raise SystemExit(
            "harvest_jax is not installed, and no wheel of it was found. Put harvest_jax-VERSION-py3-none-any.whl into "
            f"{Path.cwd()} and run this cell again, or set SOURCE in this cell."
        )
    return uploaded[0]


def install(source):
    """Install it with the accelerator's plugin, which must be of the same version as jax."""
    extra = "[gpu]" if shutil.which("nvidia-smi") else "[tpu]" if importlib.util.find_spec("libtpu") else ""
    if Path(source).exists():
        source = Path(source).resolve().as_uri()
    named = source.startswith("harvest_jax")
    wanted = f"harvest_jax{extra}{source.removeprefix('harvest_jax')}" if named else f"harvest_jax{extra} @ {source}"
    in_use = {"numpy": "numpy", "jax": "jax", "PIL": "pillow", "google.protobuf": "protobuf", "pyarrow": "pyarrow"}
    before = {name: sys.modules[name].__version__ for name in in_use if name in sys.modules}
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wanted]
    print("installing", wanted)
    done = subprocess.run(pip, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    importlib.invalidate_caches()
    if done.returncode or importlib.util.find_spec("harvest_jax") is None:
        raise SystemExit(f"pip did not install harvest_jax:\n{done.stdout}")
    if changed := [name for name, old in before.items() if importlib.metadata.version(in_use[name]) != old]:
        raise SystemExit(
            f"harvest_jax is installed. pip replaced {', '.join(changed)}, which this session had loaded already: "
            "restart the session (Colab: Runtime > Restart session) and run all cells again."
        )


if importlib.util.find_spec("harvest_jax") is None:
    install(find_source())

from harvest_jax import cli


def harvest(words, status=0):
    """`harvest WORDS`, in this process: only one process can use a TPU, or most of a GPU's memory.

    It ends this cell if the command ends with another exit code than `status`.
    """
    print(f"$ harvest {words}")
    with contextlib.redirect_stderr(sys.stdout):  # notebooks show stderr as an alarm, and progress is none
        ended = cli.main(shlex.split(words))
    if ended != status:
        raise SystemExit(f"harvest ended with exit code {ended}")
