"""Where JAX keeps compiled programs between commands, so that a restart does not compile again.

JAX's own persistent compilation cache does it: what it keeps is named by a digest of the program, the compiler's
options, the kind of device and the versions of JAX and its compiler. Programs for a CPU use that CPU's instructions,
and a home folder may be shared by machines with different ones: so each kind of CPU has a folder of its own.
"""

import hashlib
import os
import platform
from pathlib import Path

LARGEST = 4 * 2**30  # bytes of a folder; then JAX removes what was not used for longest
_FOLDER = "JAX_COMPILATION_CACHE_DIR"  # JAX reads these variables when it is imported
_SIZE = "JAX_COMPILATION_CACHE_MAX_SIZE"


def keep_compiled_programs() -> None:
    """Set JAX's variables for this process and its children, before jax is imported.

    Nothing is changed where the user has set JAX_COMPILATION_CACHE_DIR, and nothing is kept where the folder cannot be
    made. JAX_ENABLE_COMPILATION_CACHE=false switches it off.
    """
    if _FOLDER in os.environ:
        return
    folder = user_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    os.environ[_FOLDER] = str(folder)
    os.environ.setdefault(_SIZE, str(LARGEST))


def user_folder() -> Path:
    """The folder of this user and this kind of CPU: `~/.cache/harvest_jax/compiled/CPU`, or below XDG_CACHE_HOME."""
    caches = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(caches) / "harvest_jax" / "compiled" / _kind_of_cpu()


def share_compiled_programs(folder: Path) -> None:
    """Keep the compiled programs of a run of several processes in a folder that all of them see.

    Only process 0 writes. From folders of their own the others would never read anything: at a restart process 0 would
    wait for them in its first exchange while they compile.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    if os.environ.get(_FOLDER) != str(user_folder()):  # off, or in a place that the user chose
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    compilation_cache.reset_cache()  # it has opened the user's folder


def _kind_of_cpu() -> str:
    """Machine type and a digest of the instructions that this CPU has."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = [platform.processor()]
    # flags (x86) or Features (ARM); the model is there because the compiler tunes for it
    kept = sorted({line for line in lines if line.lower().startswith(("flags", "features", "model name", "cpu part"))})
    digest = hashlib.sha256("\n".join(kept or lines[:1]).encode()).hexdigest()
    return f"{platform.machine()}-{digest[:12]}"
