"""Two captions and two videos that differ in the order of events: does each find its own? (Vinoground, Winoground)

The scores are those of Winoground (arXiv 2204.03162, section 4.1) and of Vinoground's own program for embedding models
(Vinoground/Vinoground, eval/videoclip.py), with strict inequalities: a tie is wrong.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from harvest_jax.errors import DataError
from harvest_jax.evaluate import frame_average, tables
from harvest_jax.evaluate.clips.embeddings import VideoEmbeddings, VideoTextModel, embed_texts, text_facts
from harvest_jax.evaluate.clips.evaluation_set import EvaluationSet
from harvest_jax.evaluate.result.queries import Queries
from harvest_jax.evaluate.result.results import TaskOutput
from harvest_jax.evaluate.scores import ranking
from harvest_jax.evaluate.settings import TaskSettings
from harvest_jax.terminal import Progress

# Expected scores of four random numbers, in percent: two choices that must both be right; for the group both right
# pairs above both wrong ones, 2! 2! of 4! orders.
CHANCE = {"text": 25.0, "video": 25.0, "group": 100 / 6, "text_accuracy": 50.0, "video_accuracy": 50.0}
STRICT = ("text", "video", "group")
COLUMNS = (*STRICT, "text_accuracy", "video_accuracy")


@dataclasses.dataclass(frozen=True)
class Settings(TaskSettings):
    """`configs/eval/pairs.py`."""


def run(model: VideoTextModel, data: EvaluationSet, settings: Settings, progress: Progress) -> TaskOutput:
    """Compare the two captions and the two videos of each group.

    Raises:
      DataError: the rows are not groups of two, or no video could be read.
      NonFiniteError: an embedding is zero or not finite.
    """
    rows = groups(data)
    clip = np.array([sample.clip for sample in data.samples])[rows]
    types = group_types(data, rows)
    captions = [sample.captions[0] for sample in data.samples]
    text = embed_texts(model, captions, settings.batch_size)[rows]

    def cosines(video: VideoEmbeddings) -> Float[np.ndarray, "groups 2 2"]:
        return similarities(video.values[clip], text, video.missing[clip].any(axis=1))

    def scores(video: VideoEmbeddings) -> dict[str, Any]:
        return score(cosines(video), video.missing[clip].any(axis=1), types)

    video, metrics = frame_average.embed_and_score(model, data, settings, progress, scores)
    protocol = {
        "groups": len(rows),
        "group_ties": "wrong",
        "frame_average": frame_average.IN_WORDS,
        "text_length": model.config.text.context_length,
    }
    missing = video.missing[clip].any(axis=1)
    # Each video chooses a caption, then each caption a video; the clip and the text are those of the right pair.
    of_group = [tuple((data.clips[data.samples[row].clip], captions[row]) for row in pair) for pair in rows]
    asked = [of_group[group][number] for group in range(len(rows)) for number in (0, 1, 0, 1)]
    kinds = [";".join(own) for own in types] if types is not None else [""] * len(rows)
    return TaskOutput(
        protocol=protocol,
        content=[
            [sorted(([data.identity(data.samples[row].clip), captions[row]] for row in pair), key=str), kind]
            for pair, kind in zip(rows, kinds, strict=True)
        ],
        missing=missing,
        reasons=video.reasons,
        metrics=metrics,
        queries=[
            Queries(
                "pair",
                [one for one, _ in asked],
                [caption for _, caption in asked],
                choose(cosines(video), missing),
                np.repeat(missing, 4),
                [kind for kind in kinds for _ in range(4)],
            )
        ],
        texts=text_facts(model, captions),
    )


def table(metrics: Mapping[str, Any]) -> list[str]:
    """The strict scores beside chance and the average of frames, and those of each type."""
    lines = tables.columns(
        COLUMNS, {"model": metrics, "average of frames": metrics["frame_average"], "chance": metrics["chance"]}
    )
    if "per_type" in metrics:
        lines += ["", *tables.columns(("n", *STRICT), metrics["per_type"])]
    return lines


def groups(data: EvaluationSet) -> Int[np.ndarray, "groups 2"]:
    """The two rows of each group: those with the same text in the column `group`, in the order of the file.

    Which of the two comes first makes no difference to any score.

    Raises:
      DataError: a row has no `group` or not exactly one caption; a group has not two rows, or both are of one clip.
    """
    captions = [sample.id for sample in data.samples if len(sample.captions) != 1]
    if captions:
        raise DataError(
            f"{data.name}: {len(captions)} rows have no caption or several, the first: {captions[0]}; each needs one"
        )
    rows: dict[str, list[int]] = {}
    for number, name in enumerate(data.column("group")):
        rows.setdefault(name, []).append(number)
    uneven = [name for name, members in rows.items() if len(members) != 2]
    if uneven:
        first = f"{uneven[0]!r} ({len(rows[uneven[0]])} rows)"
        raise DataError(f"{data.name}: {len(uneven)} groups have not two rows, the first: {first}")
    same = [name for name, (a, b) in rows.items() if data.samples[a].clip == data.samples[b].clip]
    if same:
        raise DataError(f"{data.name}: {len(same)} groups have one clip for both captions, the first: {same[0]!r}")
    return np.array(list(rows.values()), np.int64)


def group_types(data: EvaluationSet, rows: Int[np.ndarray, "groups _"]) -> list[tuple[str, ...]] | None:
    """The types of each group, from the column `type` of its first row; several are separated by `;`.

    None if the rows have no such column, or not all of them.
    """
    column = data.column_if_complete("type")
    if column is None:
        return None
    return [tuple(one.strip() for one in column[row].split(";") if one.strip()) for row in rows[:, 0]]


def similarities(
    video: Float[np.ndarray, "groups 2 width"],
    text: Float[np.ndarray, "groups 2 width"],
    lost: Bool[np.ndarray, " groups"],
) -> Float[np.ndarray, "groups 2 2"]:
    """Cosine of each video (rows) and each caption (columns) of a group; zero in groups whose videos are missing.

    Raises:
      NonFiniteError: an embedding is zero or not finite.
    """
    result = np.zeros((len(video), 2, 2), np.float32)
    for i in range(2):
        for j in range(2):
            result[~lost, i, j] = ranking.row_similarity(video[~lost, i], text[~lost, j])
    return result


def choose(
    scores: Float[np.ndarray, "groups 2 2"], missing: Bool[np.ndarray, " groups"], tolerance: float = 0.0
) -> ranking.Ranks:
    """The four choices of each group, one after the other: of video 0, video 1, caption 0, caption 1; as `score`."""
    right = scores[:, [0, 1, 0, 1], [0, 1, 0, 1]].reshape(-1)
    wrong = scores[:, [0, 1, 1, 0], [1, 0, 0, 1]].reshape(-1)
    return two_way(right, wrong, np.repeat(missing, 4), tolerance)


def two_way(
    right: Float[np.ndarray, " choices"],
    wrong: Float[np.ndarray, " choices"],
    missing: Bool[np.ndarray, " choices"],
    tolerance: float = 0.0,
) -> ranking.Ranks:
    """Ranks of choices between one right and one wrong answer; scores no further apart than `tolerance` are equal."""
    near = np.abs(right - wrong) <= tolerance
    options = np.stack([right, np.where(near, right, wrong)], axis=1)
    return ranking.choice(options, np.zeros(len(options), np.int64), missing)


def score(
    scores: Float[np.ndarray, "groups 2 2"],
    missing: Bool[np.ndarray, " groups"],
    types: Sequence[Sequence[str]] | None = None,
    tolerance: float = 0.0,
) -> dict[str, Any]:
    """Shares of the groups, in percent.

    Args:
      scores: [group, video, caption], higher is more similar; video 0 belongs to caption 0, video 1 to caption 1.
      missing: groups of which a video could not be read; everything of them is wrong, and their scores are ignored.
      types: types of each group; a group counts for each of its types.
      tolerance: scores no further apart than this count as equal.

    Returns:
      "text": both videos choose their caption. "video": both captions choose their video. "group": both. Strict: a tie
        is wrong, as in the published figures. These three are the headline.
      "text_accuracy", "video_accuracy": share of the single choices that are right; a tie counts half.
      "expectation": the first three as the expectation over random orders of tied scores. A model that gives the same
        score to everything has chance there, and 0 in the headline.
      "optimistic", "pessimistic": the first three with every tie right, and with every tie wrong.
      "chance": of each of the five. "n" groups, "n_tied_queries" groups with a tie.
      "per_type" (if there are types): {type: {"n", "text", "video", "group"}}.

    Raises:
      NonFiniteError: a score of a group that is not missing is not finite.
    """
    ranks = choose(scores, missing, tolerance)
    chosen = ranking.probability_within(ranks, 1).reshape(-1, 4)
    best = _both_and_all(ranking.probability_within(ranks.optimistic, 1).reshape(-1, 4))
    strict = _both_and_all(ranking.probability_within(ranks.pessimistic, 1).reshape(-1, 4))
    expected = _both_and_all(chosen) | {"group": _group_expectation(scores, missing, tolerance)}
    result: dict[str, Any] = {
        **_percent(strict),
        "text_accuracy": 100 * float(chosen[:, :2].mean()),
        "video_accuracy": 100 * float(chosen[:, 2:].mean()),
        "chance": dict(CHANCE),
        "n": len(scores),
        "n_tied_queries": int(np.sum((ranks.tied > 0).reshape(-1, 4).any(axis=1))),
        "expectation": _percent(expected),
        "optimistic": _percent(best),
        "pessimistic": _percent(strict),
    }
    if types is not None:
        result["per_type"] = {
            name: {"n": len(members), **_percent({key: value[members] for key, value in strict.items()})}
            for name, members in _members(types).items()
        }
    return result


def _both_and_all(chosen: Float[np.ndarray, "groups 4"]) -> dict[str, Float[np.ndarray, " groups"]]:
    """Probabilities of the three scores from those of the four choices, if the choices are independent."""
    text, video = chosen[:, 0] * chosen[:, 1], chosen[:, 2] * chosen[:, 3]
    return {"text": text, "video": video, "group": text * video}


def _group_expectation(
    scores: Float[np.ndarray, "groups 2 2"], missing: Bool[np.ndarray, " groups"], tolerance: float
) -> Float[np.ndarray, " groups"]:
    """Probability that both right pairs are above both wrong ones, over random orders of tied scores.

    The choices of captions and of videos share their scores, so that this is not the product of the other two.
    """
    right, wrong = scores[:, [0, 1], [0, 1]], scores[:, [0, 1], [1, 0]]
    low, high = right.min(axis=1), wrong.max(axis=1)
    # Only pairs that tie across the border matter: p right and q wrong ones, of which every order is equally likely.
    p = np.sum(right <= high[:, None] + tolerance, axis=1)
    q = np.sum(wrong >= low[:, None] - tolerance, axis=1)
    orders = np.array([math.comb(int(a + b), int(a)) for a, b in zip(p, q, strict=True)])
    return np.where(missing | (low < high - tolerance), 0.0, 1 / orders)


def _percent(shares: Mapping[str, Float[np.ndarray, " _"]]) -> dict[str, float]:
    return {name: 100 * float(share.mean()) for name, share in shares.items()}


def _members(types: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    """The numbers of the groups of each type, types in alphabetical order."""
    found: dict[str, list[int]] = {}
    for number, own in enumerate(types):
        for one in dict.fromkeys(own):
            found.setdefault(one, []).append(number)
    return dict(sorted(found.items()))
