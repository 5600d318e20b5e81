"""Preparation with a runner of Apache Beam: one element is one shard, written by the same function as without Beam.

    harvest shards --manifest clips.csv --out /shared/clips --runner dask -- --dask_client_address=tcp://10.0.0.1:8786

Only the numbers of shards go through Beam. The plan, the videos and the shards are on a file system that every worker
sees under the same path. Finished shards are kept even if the job fails.
"""

import contextlib
import functools
import importlib.util
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.prepare import ledger, write
from data_pipeline.prepare.split import Engine
from data_pipeline.prepare.split_progress import SplitProgress, TooManyRejects
from harvest_jax.errors import ConfigError, HarvestError
from harvest_jax.terminal import one_line

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

_RUNNERS = {
    "direct": "DirectRunner",
    "dask": "apache_beam.runners.dask.dask_runner.DaskRunner",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
    "dataflow": "DataflowRunner",
}
_EXTRAS = {"dask": ("dask.distributed", "dask"), "dataflow": ("google.cloud.storage", "gcp")}  # module, Beam's extra
_EVERY = 2.0  # seconds between two checks of which shards are finished


def options_of(runner: str, words: Sequence[str]) -> "PipelineOptions":
    """Beam's options: the runner, and further options as on a command line.

    Raises:
      ConfigError: Beam, or what it needs for this runner, is not installed; an option has a wrong value.
    """
    if not _is_installed("apache_beam"):
        raise ConfigError(f"--runner {runner} needs Apache Beam: pip install 'harvest_jax[beam]'")
    module, extra = _EXTRAS.get(runner, ("", ""))
    if module and not _is_installed(module):
        raise ConfigError(f"--runner {runner} needs an extra of Apache Beam: pip install 'apache-beam[{extra}]'")
    from apache_beam.options.pipeline_options import PipelineOptions

    words = [f"--runner={_RUNNERS[runner]}", *words]
    if runner == "dask" and not any(word.startswith(("--dask_partition_size", "--dask_npartitions")) for word in words):
        words.append("--dask_partition_size=1")  # otherwise 128 shards are one task of one worker
    try:
        options = PipelineOptions(words)
        options.get_all_options()
    except SystemExit as error:  # argparse has printed the error
        raise ConfigError(f"the options after -- are not options of Apache Beam: {' '.join(words[1:])}") from error
    return options


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


def engine(options: "PipelineOptions | None", workers: int = 1, runner: Any = None) -> Engine:
    """An engine that runs a pipeline of Beam.

    Args:
      options: Beam's.
      workers: decoder processes per shard.
      runner: Beam's, or its name; None: that of the options.
    """
    return functools.partial(_write_shards, options=options, workers=workers, runner=runner)


def _write_shards(
    job: Path,
    indices: Sequence[int],
    count: SplitProgress,
    *,
    options: "PipelineOptions | None",
    workers: int,
    runner: Any,
) -> None:
    """Run a pipeline that writes these shards, and wait for it.

    Raises:
      TooManyRejects: too many clips failed; no further shard was begun.
      HarvestError: the job failed; finished shards are kept.
    """
    import apache_beam as beam

    with _watching(job, indices, count):
        try:
            pipeline = beam.Pipeline(runner=runner, options=options)
            shards = pipeline | "Shards" >> beam.Create(list(indices)) | "Spread" >> beam.Reshuffle()
            _ = shards | "Write" >> beam.Map(_write_shard, str(job), workers)
            pipeline.run().wait_until_finish()
        except Exception as error:  # runners raise any kind of error
            count.check()
            raise HarvestError(
                f"the job stopped; finished shards are kept, and the same command writes the others "
                f"({type(error).__name__}: {one_line(error, 500)})"
            ) from error
    count.check()


def _write_shard(index: int, job: str, workers: int) -> int:
    write.write_shards(job, [index], workers)
    return index


@contextlib.contextmanager
def _watching(job: Path, indices: Sequence[int], count: SplitProgress) -> Iterator[None]:
    """Count shards as their ledgers appear; when too many clips fail, tell the workers to begin no further shard."""
    waiting = {ledger.path_of(job, index).name: index for index in indices}
    over = threading.Event()

    def look() -> None:
        with contextlib.suppress(OSError):  # a network file system that is temporarily unavailable
            count_new()
        count.show()
        try:
            count.check()
        except TooManyRejects:
            with contextlib.suppress(OSError):
                (job / write.STOP).touch()

    def count_new() -> None:
        found = [entry.name for entry in os.scandir(job) if entry.name in waiting]
        for name in found:
            shard = ledger.read(job, waiting.pop(name))
            if shard is not None:
                count.add_shard(shard)

    def watch() -> None:
        while not over.wait(_EVERY):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look()
