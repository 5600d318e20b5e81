"""Where compiled programs are kept between commands."""

import os
import subprocess
import sys

from harvest_jax.compiled_programs import keep_compiled_programs, user_folder

FOLDER = "JAX_COMPILATION_CACHE_DIR"


def test_the_folder_is_the_users_unless_it_is_set(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(FOLDER, "elsewhere")  # so that monkeypatch restores both variables
    monkeypatch.setenv("JAX_COMPILATION_CACHE_MAX_SIZE", "1")
    keep_compiled_programs()
    assert os.environ[FOLDER] == "elsewhere"
    monkeypatch.delenv(FOLDER)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_MAX_SIZE")
    keep_compiled_programs()
    assert os.environ[FOLDER] == str(user_folder())
    assert user_folder().is_dir()
    assert user_folder().parent == tmp_path / "harvest_jax" / "compiled"
    assert int(os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"]) > 0


def test_without_a_place_nothing_is_kept(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv(FOLDER, "elsewhere")
    monkeypatch.delenv(FOLDER)
    keep_compiled_programs()
    assert FOLDER not in os.environ


PROGRAM = """
from harvest_jax.compiled_programs import keep_compiled_programs
keep_compiled_programs()
import jax, jax.numpy as jnp
print(float(jax.jit(lambda x: jnp.tanh(x) @ x)(jnp.ones((8, 8))).sum()))
"""


def test_a_damaged_program_is_compiled_again(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

    def result():
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=120)
        return done.stdout

    first = result()
    kept = [path for path in user_folder().glob("*-cache") if "lambda" in path.name]
    assert kept
    assert result() == first
    for damaged in (b"", kept[0].read_bytes()[:-7]):
        kept[0].write_bytes(damaged)
        assert result() == first
