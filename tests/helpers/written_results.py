"""Result files of retrieval made from a matrix of scores, without a model and without videos."""

import numpy as np

from harvest_jax.evaluate.clips.frame_readers import VideoSpan
from harvest_jax.evaluate.result.queries import Queries
from harvest_jax.evaluate.result.results import EvaluationResult, TextFacts
from harvest_jax.evaluate.scores import ranking
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
      more: "protocol", "origin", "frames" (of the model), "name", "set_name", "n_missing", "date",
        "warnings", "metrics".
    """
    owner = np.asarray(owner)
    scores = np.asarray(scores, np.float32)
    t2v, v2t = whole_matrix.text_to_video(scores, owner), whole_matrix.video_to_text(scores, owner)
    order = np.arange(len(owner)) if order is None else np.asarray(order)
    clips = [VideoSpan(f"video{number}") for number in range(len(scores))]
    shuffled = ranking.Ranks(t2v.greater[order], t2v.tied[order], t2v.right[order])
    result = EvaluationResult(
        task="retrieval",
        protocol={"task": "retrieval", "frames": 4, "data": {"sha256": "0" * 64}} | more.get("protocol", {}),
        model={
            "name": more.get("name", f"runs/{model}/export"),
            "sha256": WEIGHTS[model],
            "origin": more.get("origin", {}),
            "config": {"video": {"num_frames": more.get("frames", 4)}},
        },
        data={"name": more.get("set_name", "kites"), "kind": "manifest", "split": ""},
        inputs={},
        texts=TextFacts(len(owner), 77, 0),
        n_expected=len(scores),
        n_missing=more.get("n_missing", 0),
        missing=[],
        metrics={"t2v": ranking.summary(t2v), "v2t": ranking.summary(v2t)} | more.get("metrics", {}),
        faults=more.get("warnings", []),
        notes=[],
        run={"date": more.get("date", "2030-01-01T00:00:00+00:00")},
        queries=[
            Queries(
                "t2v",
                [clips[owner[number]] for number in order],
                [f"caption {number}" for number in order],
                shuffled,
                np.zeros(len(owner), bool),
            ),
            Queries("v2t", clips, [""] * len(clips), v2t, np.zeros(len(clips), bool)),
        ],
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
