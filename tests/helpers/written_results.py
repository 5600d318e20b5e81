"""Result files made from numbers, without a model and without videos: retrieval, and multiple choice."""

import numpy as np

from harvest_jax.evaluate.clips.frame_readers import VideoSpan
from harvest_jax.evaluate.result.queries import Queries
from harvest_jax.evaluate.result.results import EvaluationResult, TextFacts
from harvest_jax.evaluate.scores import ranking
from harvest_jax.evaluate.tasks import multiple_choice
from tests.helpers import whole_matrix

WEIGHTS = {name: (name * 64)[:64] for name in "abcdef"}


def write_retrieval(path, scores, owner, model="a", order=None, **more):
    """A result of retrieval.

    Args:
      path: of the JSON file.
      scores: [videos, captions].
      owner: the video of each caption.
      model: a letter of `WEIGHTS`.
      order: of the captions in the table of queries; it must not matter.
      more: "protocol", "origin", "frames" (of the model), "name", "set_name", "kind", "split",
        "n_missing", "date", "warnings", "metrics".
    """
    owner = np.asarray(owner)
    scores = np.asarray(scores, np.float32)
    t2v, v2t = whole_matrix.text_to_video(scores, owner), whole_matrix.video_to_text(scores, owner)
    order = np.arange(len(owner)) if order is None else np.asarray(order)
    clips = [VideoSpan(f"video{number}") for number in range(len(scores))]
    shuffled = ranking.Ranks(t2v.greater[order], t2v.tied[order], t2v.right[order])
    queries = [
        Queries(
            "t2v",
            [clips[owner[number]] for number in order],
            [f"caption {number}" for number in order],
            shuffled,
            np.zeros(len(owner), bool),
        ),
        Queries("v2t", clips, [""] * len(clips), v2t, np.zeros(len(clips), bool)),
    ]
    metrics = {"t2v": ranking.summary(t2v), "v2t": ranking.summary(v2t)}
    return _write(path, "retrieval", metrics, queries, TextFacts(len(owner), 77, 0), len(scores), model, more)


def write_choice(path, right, types, model="a", **more):
    """A result of the choice between two texts.

    Args:
      path: of the JSON file.
      right: for each clip whether the right text was chosen.
      types: of the clips.
      model, more: as for `write_retrieval`.
    """
    number = len(right)
    wrong, none = 1 - np.asarray(right, np.int64), np.zeros(number, np.int64)
    ranks, missing = ranking.Ranks(wrong, none, none + 1), none.astype(bool)
    metrics = multiple_choice.score(ranks, none + 2, missing, types)
    clips = [VideoSpan(f"video{clip}") for clip in range(number)]
    queries = [Queries("choice", clips, [f"text {clip}" for clip in range(number)], ranks, missing, types)]
    return _write(path, "multiple_choice", metrics, queries, TextFacts(2 * number, 77, 0), number, model, more)


def _write(path, task, metrics, queries, texts, n_expected, model, more):
    result = EvaluationResult(
        task=task,
        protocol={"task": task, "frames": 4, "data": {"sha256": "0" * 64}} | more.get("protocol", {}),
        model={
            "name": more.get("name", f"runs/{model}/export"),
            "sha256": WEIGHTS[model],
            "origin": more.get("origin", {}),
            "config": {"video": {"num_frames": more.get("frames", 4)}},
        },
        data={
            "name": more.get("set_name", "kites"),
            "kind": more.get("kind", "manifest"),
            "split": more.get("split", ""),
        },
        inputs={},
        texts=texts,
        n_expected=n_expected,
        n_missing=more.get("n_missing", 0),
        missing=[],
        metrics=metrics | more.get("metrics", {}),
        faults=more.get("warnings", []),
        notes=[],
        run={"date": more.get("date", "2030-01-01T00:00:00+00:00")},
        queries=queries,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    result.write(path)
    return path


def noisy(seed, videos=40, captions=2, noise=1.0):
    """(scores, owner): the right pair is one above the others, plus noise."""
    owner = np.repeat(np.arange(videos), captions)
    scores = np.random.default_rng(seed).normal(size=(videos, len(owner))) * noise
    scores[owner, np.arange(len(owner))] += 2
    return scores, owner
