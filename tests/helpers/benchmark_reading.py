"""Reading benchmarks in tests: miniatures, the real files where they are, and messages of wrong ones."""

from pathlib import Path
from types import ModuleType

import pytest

from harvest_jax.errors import DataError
from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row
from harvest_jax.evaluate.benchmarks.read_benchmark import read
from tests.helpers.annotations import ANNOTATIONS


def of_module(module: ModuleType, name: str) -> Benchmark:
    """The benchmark of a module of `datasets`."""
    (found,) = (benchmark for benchmark in module.BENCHMARKS if benchmark.name == name)
    return found


def fault(benchmark: Benchmark, annotations: Path) -> str:
    """The message that refuses the files of another size than the official ones; it is one line."""
    with pytest.raises(DataError) as caught:
        read(benchmark, annotations, partial=True)
    message = str(caught.value)
    assert "\n" not in message
    return message


def real(benchmark: Benchmark, folder: str) -> list[Row]:
    """The rows of the real files, their counts checked; the test is skipped where the files are missing."""
    if not (ANNOTATIONS / folder).is_dir():
        pytest.skip("no annotation files here")
    return read(benchmark, ANNOTATIONS / folder)
