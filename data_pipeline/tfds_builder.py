"""`harvest shards` as a TFDS builder, for users of tensorflow_datasets.

    from data_pipeline.tfds_builder import HarvestClips

    builder = HarvestClips(manifest=["clips.csv"], data_dir="shards")
    builder.download_and_prepare()                     # shards/harvest_clips/1.0.0, the bytes of `harvest shards`
    builder.as_data_source("train")[0]["captions"]

Nothing is downloaded. TFDS's own writer is not used: it shuffles with TensorFlow, and starts from the beginning after
every stop. TensorFlow is never imported.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from data_pipeline.manifest.read import iter_manifest
from data_pipeline.prepare.options import Options
from data_pipeline.prepare.split import Execution, local_engine, prepare
from data_pipeline.shards.shard_format import VERSION
from data_pipeline.shards.tfds_metadata import features


class HarvestClips(tfds.core.DatasetBuilder):
    """Captioned clips from manifests, folders, tars or other datasets.

    `tfds.builder("harvest_clips", ...)` passes these arguments on; for `tfds.load` put them into its `builder_kwargs`.

    Args:
      manifest: as after `harvest shards --manifest`.
      root: folder that the videos' names are relative to; default: the manifests' folder.
      split: take only the rows of this split.
      options: what to write.
      workers: decoder processes; with a runner of Beam, per shard.
      others: arguments of TFDS builders, such as `data_dir`, below which the folder of the dataset is made.
    """

    VERSION = tfds.core.Version(VERSION)
    pkg_dir_path = Path(__file__).parent  # otherwise TFDS looks for a description in the files of this package

    def __init__(
        self,
        *,
        manifest: Sequence[str | os.PathLike[str]],
        root: str | os.PathLike[str] | None = None,
        split: str | None = None,
        options: Options | None = None,
        workers: int = 1,
        **others: Any,
    ):
        self._source = ([Path(source) for source in manifest], None if root is None else Path(root), split)
        self._options, self._workers = options or Options(), workers
        super().__init__(**others)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=features())

    def download_and_prepare(
        self, *, download_config: tfds.download.DownloadConfig | None = None, **others: Any
    ) -> None:
        """Write all splits; what an earlier call has written is kept.

        Args:
          download_config: its `beam_runner` and `beam_options` choose an engine of Apache Beam.
          others: further arguments of TFDS builders, not used.

        Raises:
          HarvestError, OSError: as `split.prepare`.
        """
        config = download_config or tfds.download.DownloadConfig()
        engine = local_engine(self._workers)
        if config.beam_runner is not None or config.beam_options is not None:
            from data_pipeline.prepare import beam

            engine = beam.engine(config.beam_options, self._workers, config.beam_runner)
        execution = Execution(engine, self._workers, overwrite=config.download_mode.overwrite_dataset)
        stream = iter_manifest(*self._source)
        for _ in prepare(
            ((row.split, row) for row in stream), stream.root, Path(self.data_dir), self._options, execution
        ):
            pass
        self.info.read_from_directory(self.data_dir)

    def _download_and_prepare(self, **_: Any) -> None:
        raise NotImplementedError("use download_and_prepare")

    def _as_dataset(self, **_: Any) -> Any:
        raise NotImplementedError("use as_data_source: as_dataset needs TensorFlow")
