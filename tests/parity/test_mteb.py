"""A model in MTEB: a small retrieval task of MTEB's own class, with real clips, scored as we score them."""

import dataclasses

import numpy as np
import pytest

mteb = pytest.importorskip("mteb", reason="the extra `mteb` is not installed: make parity")

from datasets import Dataset, Video  # noqa: E402
from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402

from harvest_jax.demo.clips import TEST_FRAMES, scenes  # noqa: E402
from harvest_jax.demo.image_clip import SHIPPED  # noqa: E402
from harvest_jax.demo.world import render_clip  # noqa: E402
from harvest_jax.encode import write_video  # noqa: E402
from harvest_jax.errors import DataError  # noqa: E402
from harvest_jax.mteb_model import mteb_model  # noqa: E402

pytestmark = pytest.mark.parity
FIELDS = {"name": "harvest_jax/demo", "license": "apache-2.0", "training_datasets": set()}
CLIPS = 8


class Clips(AbsTaskRetrieval):
    """Find the clip for a caption."""

    metadata = TaskMetadata(
        name="HarvestClips",
        description="Generated clips.",
        dataset={"path": "not/there", "revision": "0"},
        type="Any2AnyRetrieval",
        eval_langs=["eng-Latn"],
        eval_splits=["test"],
        main_score="recall_at_1",
        category="t2v",
        modalities=["video", "text"],
    )

    def __init__(self, paths, captions, **kwargs):
        super().__init__(**kwargs)
        self.paths, self.captions = paths, captions

    def load_data(self, *args, **kwargs):
        """The clips: half as paths, half as bytes, which is what a data set on the Hub holds."""
        ids = [str(number) for number in range(len(self.paths))]
        half = len(ids) // 2
        videos = [*map(str, self.paths[:half]), *(path.read_bytes() for path in self.paths[half:])]
        corpus = Dataset.from_dict({"id": ids, "video": [Video().encode_example(video) for video in videos]})
        queries = Dataset.from_dict({"id": ids, "text": self.captions})
        data = RetrievalSplitData(
            corpus=corpus.cast_column("video", Video()),
            queries=queries,
            relevant_docs={number: {number: 1} for number in ids},
            top_ranked=None,
        )
        self.dataset = {"default": {"test": data}}
        self.data_loaded = True


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """(paths, captions) of generated clips."""
    folder = tmp_path_factory.mktemp("clips")
    chosen = scenes(0)["retrieval"][::5][:CLIPS]
    paths = [folder / f"{number}.mp4" for number in range(len(chosen))]
    for path, scene in zip(paths, chosen, strict=True):
        write_video(path, render_clip(scene, TEST_FRAMES))
    return paths, [scene.caption for scene in chosen]


@pytest.fixture(scope="module")
def model():
    return mteb_model(str(SHIPPED), public_training_data="https://example.org/world", **FIELDS)


def test_a_task_gets_our_scores(model, clips, tmp_path, monkeypatch):
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path))
    paths, captions = clips
    found = mteb.evaluate(model, Clips(paths, captions), cache=None, show_progress_bar=False, co2_tracker=False)
    scores = found.task_results[0].scores["test"][0]
    ours = model.model.encode_text(captions) @ model.model.encode_video(paths).T
    rank = (ours > np.diag(ours)[:, None]).sum(axis=1)
    assert (rank == 0).mean() > 0  # the packaged model knows colours and shapes
    for depth in (1, 3, 5):
        assert scores[f"recall_at_{depth}"] == pytest.approx((rank < depth).mean(), abs=1e-5)
    assert scores["main_score"] == scores["recall_at_1"]


def test_rows_of_both_and_of_neither(model, clips):
    @dataclasses.dataclass
    class Loader:
        dataset: Dataset

    paths, captions = clips
    videos = Dataset.from_dict({"video": list(map(str, paths[:3])), "text": captions[:3]}).cast_column("video", Video())
    both = model.encode(Loader(videos))
    np.testing.assert_allclose(
        both, model.model.encode_video(paths[:3]) + model.model.encode_text(captions[:3]), atol=1e-6
    )
    with pytest.raises(DataError, match="neither texts nor videos, but image"):
        model.encode(Loader(Dataset.from_dict({"image": [1]})))


def test_the_metadata_says_what_the_folder_knows(model):
    meta = model.mteb_model_meta
    assert meta.framework == ["JAX"]
    assert (meta.name, meta.license, meta.training_datasets) == ("harvest_jax/demo", "apache-2.0", set())
    assert meta.public_training_data == "https://example.org/world"
    assert meta.n_parameters == 589_249
    assert meta.max_tokens == model.model.config.text.context_length
    assert meta.embed_dim == model.model.config.video.embed_dim
    assert set(meta.modalities) == {"video", "text"}
    assert meta.revision == model.model.digest[:40]


def test_the_documented_benchmark_is_there():
    tasks = mteb.get_benchmark("MVEB(text, video)").tasks
    assert {"MSVDV2TRetrieval", "DiDeMoV2TRetrieval"} <= {task.metadata.name for task in tasks}
