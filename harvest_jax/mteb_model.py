"""A model as an encoder of MTEB (extra `mteb`), for its tasks of videos and texts.

    import mteb
    from harvest_jax.mteb_model import mteb_model

    model = mteb_model("runs/b16/export", name="me/harvest-b16", license="mit", training_datasets=set())
    mteb.evaluate(model, mteb.get_benchmark("MVEB(text, video)").tasks)

MTEB's own loading of videos is not used: it would decode with another library and take other frames than the model was
trained with. The files' bytes go through this package's decoder, so torchcodec is not needed.
"""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from datasets import Video
from jaxtyping import Float
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta

from harvest_jax.api import Model, load
from harvest_jax.errors import DataError

CLIPS = 256  # whose bytes lie on the disk at a time
CITATION = """@article{li2023harvest,
  author = {Li, Yizhuo and Li, Kunchang and He, Yinan and Wang, Yi and Wang, Yali and Wang, Limin and Qiao, Yu and Luo, Ping},
  journal = {arXiv preprint arXiv:2310.19554},
  title = {Harvest Video Foundation Models via Efficient Post-Pretraining},
  year = {2023},
}"""  # noqa: E501


class HarvestEncoder(AbsEncoder):
    """Embeds what a task gives: texts, videos, or rows with both, of which it gives the sum of both embeddings.

    Args:
      model_name: a model folder.
      revision: not used: the folder's digest is the revision.
      device: as for `harvest_jax.load`.
      kwargs: fields of `model_meta`.
    """

    def __init__(self, model_name: str, revision: str | None = None, device: str | None = None, **kwargs: Any) -> None:
        self.model = load(model_name, device)
        self.mteb_model_meta = model_meta(self.model, **kwargs)

    def encode(self, inputs: Any, **kwargs: Any) -> Float[np.ndarray, "n d"]:
        """Embed the rows of a task.

        Args:
          inputs: a DataLoader over a dataset with the columns "text" or "video", or both; others are not used.
          kwargs: task, split, prompt: nothing depends on them.

        Returns:
          float32, of unit length, except for rows with both a text and a video.

        Raises:
          DataError: no such column, or a video that cannot be read.
        """
        dataset = inputs.dataset
        columns = set(dataset.column_names)
        found = []
        if "text" in columns:
            found.append(self.model.encode_text(list(dataset["text"])))
        if "video" in columns:
            found.append(self._videos(dataset.cast_column("video", Video(decode=False))["video"]))
        if not found:
            raise DataError(f"a task of MTEB has neither texts nor videos, but {', '.join(sorted(columns))}")
        return sum(found[1:], found[0])

    def _videos(self, column: Any) -> Float[np.ndarray, "n d"]:
        embedded = [np.zeros((0, self.model.config.video.embed_dim), np.float32)]
        rows: Iterator[Any] = iter(column)
        while batch := list(itertools.islice(rows, CLIPS)):
            with tempfile.TemporaryDirectory() as folder:
                paths = [_on_disk(row, Path(folder) / str(number)) for number, row in enumerate(batch)]
                embedded.append(self.model.encode_video(paths))
        return np.concatenate(embedded)


def _on_disk(video: dict[str, Any], place: Path) -> str:
    """The path of a video of `datasets`, which has the path of a file or the file's bytes."""
    if video["bytes"] is None:
        return str(video["path"])
    place.write_bytes(video["bytes"])
    return str(place)


def mteb_model(folder: str, *, device: str | None = None, **kwargs: Any) -> HarvestEncoder:
    """A model folder as an encoder of MTEB.

    Args:
      folder: a model folder, or a training folder as for `harvest_jax.load`.
      device: as for `harvest_jax.load`.
      kwargs: fields of `model_meta`.
    """
    return HarvestEncoder(folder, device=device, **kwargs)


def model_meta(model: Model, name: str, license: str | None, training_datasets: set[str] | None, **fields: Any) -> Any:
    """MTEB's metadata: what the folder knows, and what its maker has to say.

    Args:
      model: the loaded folder.
      name: under which results are filed, "organisation/name".
      license: of the weights, one of MTEB's names ("apache-2.0") or an address; None: not known.
      training_datasets: MTEB's names of the data sets that the model was trained on, image model included, so that
        MTEB can say whether a score is zero-shot; None: not known.
      fields: any others of `mteb.models.ModelMeta`, such as `public_training_data`, `adapted_from` or `reference`.
    """
    config = model.config
    numbers = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(model.params))
    words = config.text.vocab_size * config.text.width
    known: dict[str, Any] = {
        "loader": HarvestEncoder,
        "name": name,
        "revision": model.digest[:40],
        "release_date": None,
        "languages": ["eng-Latn"],
        "n_parameters": numbers,
        "n_embedding_parameters": words,
        "memory_usage_mb": round(4 * numbers / 2**20, 1),
        "max_tokens": config.text.context_length,
        "embed_dim": config.video.embed_dim,
        "license": license,
        "open_weights": None,
        "public_training_code": None,
        "public_training_data": None,
        "framework": ["JAX"],
        "similarity_fn_name": "cosine",
        "use_instructions": False,
        "training_datasets": training_datasets,
        "modalities": ["video", "text"],
        "citation": CITATION,
    }
    return ModelMeta(**(known | fields))
