"""The benchmarks by name: those that the modules of `datasets` describe."""

import functools
import importlib
import pkgutil
import shutil
import textwrap
from collections.abc import Mapping

from harvest_jax.errors import ConfigError
from harvest_jax.evaluate import datasets
from harvest_jax.evaluate.benchmarks.benchmark import Benchmark
from harvest_jax.terminal import printable


@functools.cache
def all_benchmarks() -> Mapping[str, Benchmark]:
    """Name -> benchmark, in alphabetical order.

    Raises:
      RuntimeError: two have one name.
    """
    modules = (
        importlib.import_module(f"{datasets.__name__}.{one.name}") for one in pkgutil.iter_modules(datasets.__path__)
    )
    found: dict[str, Benchmark] = {}
    for benchmark in (benchmark for module in modules for benchmark in module.BENCHMARKS):
        if benchmark.name in found:
            raise RuntimeError(f"two benchmarks are called {benchmark.name}")
        found[benchmark.name] = benchmark
    return dict(sorted(found.items()))


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of a name.

    Raises:
      ConfigError: there is none.
    """
    try:
        return all_benchmarks()[name]
    except KeyError:
        raise ConfigError(f"no benchmark {printable(name, 80)!r}: harvest eval --list shows all") from None


def listing() -> list[str]:
    """What each benchmark is and needs, as lines for a terminal."""
    width = max(60, min(120, shutil.get_terminal_size((120, 24)).columns))
    # Addresses and file names stay whole, so that they can be copied.
    wrapper = textwrap.TextWrapper(
        width, initial_indent="    ", subsequent_indent="      ", break_long_words=False, break_on_hyphens=False
    )
    lines: list[str] = []
    for benchmark in all_benchmarks().values():
        counts = ", ".join(f"{count:,} {what}" for what, count in benchmark.expected.items())
        files = "; ".join(f"{purpose}: {' or '.join(names)}" for purpose, names in benchmark.files.items())
        facts = [
            f"{benchmark.title}, {benchmark.split}: {benchmark.task}, {counts}",
            f"needs {files}",
            f"from {benchmark.source}",
            f"licence: {benchmark.licence}",
            benchmark.notes and f"note: {benchmark.notes}",
        ]
        lines.append(f"eval/{benchmark.name}")
        for fact in filter(None, facts):
            lines += wrapper.wrap(fact)
    return lines
