"""What public programs print for a similarity matrix, bit for bit, with their names and units (fraction or percent).

These figures are never the headline: they differ from it, and from each other, in what they do with ties, with several
captions of a video and with equal captions. They need the whole matrix in memory. Each rule was compared with the
program's own code, as `tests/evaluate/scores/test_compat.py` says.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from harvest_jax.errors import DataError
from harvest_jax.evaluate.scores import relevance
from harvest_jax.evaluate.scores.cosines import TILE, spans
from harvest_jax.evaluate.scores.ranking import Counter
from harvest_jax.evaluate.scores.relevance import Relevance

Program = Literal[
    "clip4clip",
    "clip4clip_multi_sentence",
    "collaborative_experts",
    "frozen",
    "open_clip",
    "perception_models",
    "unmasked_teacher",
]
ONE_CAPTION: tuple[Program, ...] = ("clip4clip", "open_clip")  # these need exactly one caption of each video
UNREAD = -2.0  # the score of a video that could not be read: below every cosine. The programs leave it out or stop.

Figures = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Task:
    """What a program is given.

    Attributes:
      scores: finite.
      owner: the video of each caption.
      texts: the captions.
    """

    scores: Float[np.ndarray, "videos captions"]
    owner: Int[np.ndarray, " captions"]
    texts: Sequence[str]


def check(programs: Sequence[Program], owner: Int[np.ndarray, " captions"]) -> None:
    """Raises DataError: a program needs one caption of each video, and a video has several."""
    needing = [name for name in programs if name in ONE_CAPTION]
    if needing and len(np.unique(owner)) < len(owner):
        raise DataError(
            f"compat={needing[0]} is for one caption of each video, and here {len(owner)} captions belong to "
            f"{len(np.unique(owner))} videos: use clip4clip_multi_sentence or another program"
        )


def figures(
    programs: Sequence[Program],
    scores: Float[np.ndarray, "videos captions"],
    owner: Int[np.ndarray, " captions"],
    texts: Sequence[str],
    missing: Bool[np.ndarray, " videos"] | None = None,
) -> dict[str, dict[str, Figures]]:
    """{program: {"t2v": figures, "v2t": figures}} with the program's own names.

    Args:
      scores: higher is more similar; rows of missing videos are ignored and count as `UNREAD`.
      owner: the video of each caption.
      texts: the captions.

    Raises:
      DataError: see `check`.
    """
    check(programs, owner)
    if missing is not None and missing.any():
        scores = np.where(missing[:, None], scores.dtype.type(UNREAD), scores)
    task = Task(scores, owner, texts)
    return {name: dict(zip(("t2v", "v2t"), _PROGRAMS[name](task), strict=True)) for name in programs}


@dataclasses.dataclass(frozen=True)
class Places:
    """Where the best right answer of each query stands, counted from 0.

    Attributes:
      greater: answers with a higher score.
      equal: answers with its score, right ones included.
      earlier: wrong answers with its score and a smaller number than the first right one with it.
    """

    greater: Int[np.ndarray, " queries"]
    equal: Int[np.ndarray, " queries"]
    earlier: Int[np.ndarray, " queries"]

    @property
    def by_number(self) -> Int[np.ndarray, " queries"]:
        """The place if tied answers keep the order of their numbers, as a stable sort leaves them."""
        return self.greater + self.earlier

    @property
    def mean(self) -> Float[np.ndarray, " queries"]:
        """The mean of the places of all answers with this score."""
        return self.greater + (self.equal - 1) / 2


def places(
    scores: Float[np.ndarray, "queries answers"], query: Int[np.ndarray, " pairs"], answer: Int[np.ndarray, " pairs"]
) -> Places:
    """From all scores and the pairs of a query and a right answer."""
    score = scores[query, answer]
    counter = Counter(len(scores), query, score)
    first = np.full(len(scores), scores.shape[1])
    best = score == counter.best[query]
    np.minimum.at(first, query[best], answer[best])
    earlier = np.zeros(len(scores), np.int64)
    numbers = np.arange(scores.shape[1])
    for rows in spans(len(scores), TILE[0]):
        counter.add(scores[rows], rows)
        tied = scores[rows] == counter.best[rows, None]
        earlier[rows] = np.sum(tied & (numbers < first[rows, None]), axis=1)
    return Places(counter.greater, counter.equal, earlier)


def _directions(task: Task, right: Relevance | None = None) -> tuple[Places, Places]:
    right = relevance.own(task.owner) if right is None else right
    return places(task.scores.T, right.caption, right.video), places(task.scores, right.video, right.caption)


# --- ArrowLuo/CLIP4Clip, metrics.py and main_task_retrieval.py -----------------------------------------------------


def clip4clip(task: Task) -> tuple[Figures, Figures]:
    """`compute_metrics` of the matrix and of its transpose, for one caption of each video; percent.

    Every place that an answer tied with the right one has is a sample of its own, so ties count more often.
    """
    t2v, v2t = _directions(task)
    return _all_tied_places(t2v), _all_tied_places(v2t)


def clip4clip_multi_sentence(task: Task) -> tuple[Figures, Figures]:
    """`tensor_text_to_video_metrics`, and `compute_metrics` of `tensor_video_to_text_sim`, for several captions.

    Text-to-video sorts twice. Tied videos keep their order here, as a stable sort leaves them; torch.argsort need not
    be one (2.13 is not, on a processor with AVX-512), so that with ties the program's figures depend on its machine.
    Video-to-text ranks videos by the highest score of their captions.
    """
    right = relevance.own(task.owner)
    t2v = places(task.scores.T, right.caption, right.video)
    order = np.argsort(task.owner, kind="stable")
    starts = np.flatnonzero(np.diff(task.owner[order], prepend=-1))
    by_video = np.maximum.reduceat(task.scores[:, order], starts, axis=1)
    numbers = np.arange(len(by_video))
    # The program has the first captions of all videos, then the second ones: its Std_Rank adds up in this order.
    within = np.arange(len(order)) - starts[task.owner[order]]
    as_there = order[np.argsort(within, kind="stable")]
    return _tensor_figures(t2v.by_number[as_there]), _all_tied_places(places(by_video, numbers, numbers))


def _all_tied_places(found: Places) -> Figures:
    """`compute_metrics` of CLIP4Clip: the figures over the places of all answers tied with the right one."""
    length = int((found.greater + found.equal).max(initial=0))
    change = np.bincount(found.greater, minlength=length + 1) - np.bincount(
        found.greater + found.equal, minlength=length + 1
    )
    count = np.cumsum(change)[:length]  # of samples at each place
    samples, below = int(count.sum()), np.cumsum(count)
    middle = np.searchsorted(below, [(samples - 1) // 2, samples // 2], side="right")
    within = {k: int(below[min(k, length) - 1]) for k in (1, 5, 10)}
    median = float(middle.sum() / 2 + 1)
    return {
        **{f"R{k}": float(within[k]) * 100 / samples for k in within},
        "MR": median,
        "MedianR": median,
        "MeanR": float(int(np.arange(length) @ count) / samples + 1),
    }


def _tensor_figures(place: Int[np.ndarray, " queries"]) -> Figures:
    """`tensor_text_to_video_metrics`: shares divided in float32, the lower of two middle ranks."""
    median = float(np.sort(place)[(len(place) - 1) // 2] + 1)
    return {
        **{f"R{k}": float(np.float32(100 * int(np.sum(place < k))) / np.float32(len(place))) for k in (1, 5, 10)},
        "MedianR": median,
        "MeanR": float(np.mean(place + 1)),
        "Std_Rank": float(np.std(place + 1)),
        "MR": median,
    }


# --- albanie/collaborative-experts and m-bain/frozen-in-time, model/metric.py --------------------------------------


def collaborative_experts(task: Task) -> tuple[Figures, Figures]:
    """`t2v_metrics` and `v2t_metrics`; percent. A tied answer has the mean place of the tie.

    A video with fewer captions than others is filled up and masked there, which changes nothing.
    """
    t2v, v2t = _directions(task)
    return _columns_figures(t2v.mean), _columns_figures(v2t.mean)


def frozen(task: Task) -> tuple[Figures, Figures]:
    """`t2v_metrics`, where the right answer is the first of a tie, and `v2t_metrics`, where ties are averaged."""
    t2v, v2t = _directions(task)
    return _columns_figures(t2v.greater), _columns_figures(v2t.mean)


def _columns_figures(place: Float[np.ndarray, " queries"] | Int[np.ndarray, " queries"]) -> Figures:
    """`cols2metrics`."""
    result = {f"R{k}": 100 * float(np.sum(place < k)) / len(place) for k in (5, 10, 50)}
    result = {"R1": 100 * float(np.sum(place == 0)) / len(place), **result}
    result |= {"MedR": float(np.median(place) + 1), "MeanR": float(np.mean(place) + 1)}
    recalls = np.array([result["R1"], result["R5"], result["R10"]])
    mean = float(np.exp(np.mean(np.log(recalls)))) if recalls.all() else 0.0
    return {**result, "geometric_mean_R1-R5-R10": mean}


# --- mlfoundations/open_clip, src/open_clip_train/metrics.py -------------------------------------------------------


def open_clip(task: Task) -> tuple[Figures, Figures]:
    """`get_clip_metrics`, for one caption of each video; fractions. Among tied answers the smaller number is first."""
    order = np.argsort(task.owner, kind="stable")  # text i belongs to video i
    t2v, v2t = _directions(Task(task.scores[:, order], task.owner[order], task.texts))
    return _fractions("text_to_image", t2v.by_number), _fractions("image_to_text", v2t.by_number)


def _fractions(name: str, place: Int[np.ndarray, " queries"]) -> Figures:
    return {
        f"{name}_mean_rank": float(place.mean() + 1),
        f"{name}_median_rank": float(np.floor(np.median(place)) + 1),
        **{f"{name}_R@{k}": float(np.mean(place < k)) for k in (1, 5, 10)},
    }


# --- facebookresearch/perception_models, apps/pe/clip_benchmark/metrics/zeroshot_retrieval.py ----------------------


def perception_models(task: Task) -> tuple[Figures, Figures]:
    """`evaluate` without its reweighting; fractions in float32. Captions of equal text share their right videos.

    The order of tied answers in torch.topk is not defined; here the smaller number is first. R@k with k above the
    number of answers, where the program stops, is left out.
    """
    t2v, v2t = _directions(task, relevance.same_text(task.owner, task.texts))
    videos, captions = task.scores.shape
    return _single_shares("video", t2v.by_number, videos), _single_shares("text", v2t.by_number, captions)


def _single_shares(name: str, place: Int[np.ndarray, " queries"], answers: int) -> Figures:
    size = np.float32(len(place))
    return {
        f"{name}_retrieval_recall@{k}": float(np.float32(np.sum(place < k)) / size) for k in (1, 5, 10) if k <= answers
    }


# --- OpenGVLab/unmasked_teacher, multi_modality/tasks/retrieval_utils.py -------------------------------------------


def unmasked_teacher(task: Task) -> tuple[Figures, Figures]:
    """`itm_eval`; percent, rounded to two decimals. Scores are sorted by numpy's default sort and reversed.

    Where scores tie, that order depends on numpy's version and the processor, as it does in the program.
    """
    right = relevance.own(task.owner)
    t2v = _reversed_sort(task.scores.T, right.caption, right.video)
    v2t = _reversed_sort(task.scores, right.video, right.caption)
    shares = [[100.0 * int(np.sum(place < k)) / len(place) for k in (1, 5, 10)] for place in (t2v, v2t)]
    means = [sum(three) / 3 for three in shares]
    result = []
    for name, three, mean in zip(("img", "txt"), shares, means, strict=True):
        unrounded = {**{f"{name}_r{k}": share for k, share in zip((1, 5, 10), three, strict=True)}}
        unrounded |= {f"{name}_r_mean": mean, "r_mean": (means[1] + means[0]) / 2}
        result.append({key: round(value, 2) for key, value in unrounded.items()})
    return result[0], result[1]


def _reversed_sort(
    scores: Float[np.ndarray, "queries answers"], query: Int[np.ndarray, " pairs"], answer: Int[np.ndarray, " pairs"]
) -> Int[np.ndarray, " queries"]:
    found = places(scores, query, answer)
    place = found.greater.copy()
    for number in np.flatnonzero(found.equal > 1):  # without a tie every sort agrees
        order = np.argsort(scores[number])[::-1]
        place[number] = np.flatnonzero(np.isin(order, answer[query == number]))[0]
    return place


_PROGRAMS: dict[str, Callable[[Task], tuple[Figures, Figures]]] = {
    "clip4clip": clip4clip,
    "clip4clip_multi_sentence": clip4clip_multi_sentence,
    "collaborative_experts": collaborative_experts,
    "frozen": frozen,
    "open_clip": open_clip,
    "perception_models": perception_models,
    "unmasked_teacher": unmasked_teacher,
}


def lines(compat: dict[str, dict[str, Any]]) -> list[str]:
    """The figures for a terminal: a line for each program and direction, as the program names them."""
    return [
        f"{name} {direction}: " + ", ".join(f"{key} {value:.4g}" for key, value in found.items())
        for name, directions in compat.items()
        for direction, found in directions.items()
    ]
