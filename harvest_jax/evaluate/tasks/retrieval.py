"""Text-to-video and video-to-text retrieval over a gallery; `ranking` explains the scores."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from harvest_jax.config.fields import Range
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.evaluate import caption_policy, frame_average, tables
from harvest_jax.evaluate.benchmarks.named import find_benchmark
from harvest_jax.evaluate.clips.embeddings import VideoEmbeddings, VideoTextModel, embed_texts, text_facts
from harvest_jax.evaluate.clips.evaluation_set import EvaluationSet
from harvest_jax.evaluate.result.protocol import digest
from harvest_jax.evaluate.result.queries import Queries
from harvest_jax.evaluate.result.results import TaskOutput
from harvest_jax.evaluate.scores import compat, ranking
from harvest_jax.evaluate.scores.compat import Program
from harvest_jax.evaluate.scores.gallery import Positives, arrange
from harvest_jax.evaluate.scores.retrieval_scores import Extra, RetrievalScores, scores
from harvest_jax.evaluate.settings import TaskSettings
from harvest_jax.terminal import Progress

COLUMNS = ("R@1", "R@5", "R@10", "MedR", "MnR", "n_queries", "n_tied_queries")
Scale = Annotated[float, Range(0, 1e4)]


@dataclasses.dataclass(frozen=True)
class Settings(TaskSettings):
    """`configs/eval/retrieval.py`."""

    dual_softmax_scale: Scale | tuple[Scale, ...]
    frame_average: bool = False
    captions: caption_policy.Wanted = ""
    positives: Positives = "own"
    querybank: str = ""
    querybank_beta: Annotated[float, Range(0, 1e4)] = 20.0
    compat: tuple[Program, ...] = ()

    @property
    def scales(self) -> tuple[float, ...]:
        """The scales of dual softmax; 0 means none."""
        scales = self.dual_softmax_scale
        return tuple(scale for scale in (scales if isinstance(scales, tuple) else (scales,)) if scale)

    def contradictions(self) -> list[str]:
        """See `TaskSettings.contradictions`."""
        faults = super().contradictions()
        for name, values in (("dual_softmax_scale", self.scales), ("compat", self.compat)):
            if len(set(values)) < len(values):
                faults.append(f"{name}={values} names one twice")
        if self.compat and self.positives == "distinct_text":
            faults.append("compat programs take each caption as a query: not with positives=distinct_text")
        if self.data.benchmark:
            benchmark = find_benchmark(self.data.benchmark)
            try:
                caption_policy.check(self.captions, benchmark.captions, benchmark.title)
            except ConfigError as error:
                faults.append(str(error))
        return faults


def run(model: VideoTextModel, data: EvaluationSet, settings: Settings, progress: Progress) -> TaskOutput:
    """Rank every clip for every caption and the other way round.

    Raises:
      DataError: a row has no caption, the rows contradict `settings.captions` or a program of `settings.compat`, the
        query bank cannot be read, or no video could be read.
      NonFiniteError: an embedding is zero or not finite.
    """
    without = [sample.id for sample in data.samples if not sample.captions]
    if without:
        raise DataError(f"{data.name}: {len(without)} rows have no caption, the first: {without[0]}{_hint(data)}")
    captions, owner = caption_policy.queries(
        settings.captions,
        data.name,
        [sample.clip for sample in data.samples],
        [sample.captions for sample in data.samples],
    )
    compat.check(settings.compat, owner)
    bank = caption_policy.read_bank(Path(settings.querybank)) if settings.querybank else []
    text = embed_texts(model, captions, settings.batch_size)
    protocol: dict[str, Any] = {
        "gallery": len(data.clips),
        "captions": len(captions),
        "distinct_captions": len(set(captions)),
        "text_length": model.config.text.context_length,
        "dual_softmax_scale": sorted(settings.scales) if len(settings.scales) > 1 else sum(settings.scales, 0.0),
    }
    # What is as in version 0.1.0 is not named, so that results of it keep their protocol.
    if settings.captions == "paragraph" and len(captions) < sum(len(sample.captions) for sample in data.samples):
        protocol["caption_policy"] = settings.captions
    if settings.positives != "own":
        protocol["positives"] = settings.positives
    if bank:
        protocol["querybank"] = {"sha256": digest(sorted(bank)), "captions": len(bank), "beta": settings.querybank_beta}
    if settings.frame_average:
        protocol["frame_average"] = frame_average.IN_WORDS
    bank_text = embed_texts(model, bank, settings.batch_size) if bank else None
    extra = Extra(settings.scales, bank_text, settings.querybank_beta)
    found: list[RetrievalScores] = []  # of the model, then of the average of frames

    def scored(video: VideoEmbeddings) -> dict[str, Any]:
        found.append(rank(video.values, text, owner, video.missing, extra, settings.positives, captions))
        return found[-1].metrics

    video, metrics = frame_average.embed_and_score(model, data, settings, progress, scored, settings.frame_average)
    if settings.compat:
        cosines = np.zeros((len(video.values), len(text)), np.float32)
        cosines[~video.missing] = ranking.similarity(video.values[~video.missing], text)
        metrics["compat"] = compat.figures(settings.compat, cosines, owner, captions, video.missing)
    of_clip: dict[int, list[str]] = {}
    for clip, caption in zip(owner.tolist(), captions, strict=True):
        of_clip.setdefault(clip, []).append(caption)
    clips, query = data.clips, found[0].caption
    return TaskOutput(
        protocol=protocol,
        content=[[data.identity(clip), sorted(own)] for clip, own in of_clip.items()],
        missing=video.missing,
        reasons=video.reasons,
        metrics=metrics,
        queries=[
            Queries(
                "t2v",
                [clips[clip] for clip in owner[query]],
                [captions[number] for number in query],
                found[0].t2v,
                np.zeros(len(query), bool) if found[0].t2v.lost is None else found[0].t2v.lost,
            ),
            Queries("v2t", clips, [""] * len(clips), found[0].v2t, video.missing),
        ],
        texts=text_facts(model, captions),
        files={"querybank": Path(settings.querybank)} if bank else {},
        data_ties=shared_texts(captions, owner),
    )


def shared_texts(captions: Sequence[str], owner: Int[np.ndarray, " captions"]) -> float:
    """Percentage of the videos with a caption whose text another video has, too: video to text these two tie."""
    owners: dict[str, set[int]] = {}
    for caption, clip in zip(captions, owner.tolist(), strict=True):
        owners.setdefault(caption, set()).add(clip)
    shared = {clip for own in owners.values() if len(own) > 1 for clip in own}
    return 100 * len(shared) / len(np.unique(owner))


def _hint(data: EvaluationSet) -> str:
    """Which evaluation the rows seem to be made for."""
    columns = {"question": "videoqa", "options": "multiple_choice", "option_0": "multiple_choice", "label": "zero_shot"}
    fitting = [task for column, task in columns.items() if data.column_if_complete(column) is not None]
    return f"; the rows fit --config eval/{fitting[0]}" if fitting else ""


def table(metrics: Mapping[str, Any]) -> list[str]:
    """A line for each direction and rule; extra columns of the result come last, and those of other programs."""
    rows = {"text to video": metrics["t2v"], "video to text": metrics["v2t"]}
    if "v2t_max_over_captions" in metrics:
        rows["video to text, max over captions"] = metrics["v2t_max_over_captions"]
    if "frame_average" in metrics:
        average = metrics["frame_average"]
        rows |= {"text to video, average of frames": average["t2v"], "video to text, average of frames": average["v2t"]}
    for name, block in metrics.items():
        if name.startswith("dual_softmax"):
            title = f"dual softmax {block['scale']:g}"
            rows |= {"text to video, " + title: block["t2v"], "video to text, " + title: block["v2t"]}
    if "querybank" in metrics:
        rows[f"text to video, QB-Norm {metrics['querybank']['beta']:g}"] = metrics["querybank"]["t2v"]
    lines = tables.columns(COLUMNS, rows)
    if "mAP" in metrics["t2v"]:
        means = {name: metrics[key] for name, key in (("text to video", "t2v"), ("video to text", "v2t"))}
        lines += ["", *tables.columns(("mAP", "nDCG"), means)]
    if "compat" in metrics:
        lines += ["", "as other programs print it:", *compat.lines(metrics["compat"])]
    return lines


def score(
    video: Float[np.ndarray, "videos width"],
    text: Float[np.ndarray, "captions width"],
    owner: Int[np.ndarray, " captions"],
    missing: Bool[np.ndarray, " videos"],
    dual_softmax_scale: float = 0.0,
    tolerance: float = 0.0,
) -> dict[str, Any]:
    """The metrics of `rank` with at most one scale of dual softmax; cosines within `tolerance` of each other tie."""
    extra = Extra((dual_softmax_scale,) if dual_softmax_scale else ())
    return scores(arrange(video, text, owner, missing), extra, tolerance).metrics


def rank(
    video: Float[np.ndarray, "videos width"],
    text: Float[np.ndarray, "captions width"],
    owner: Int[np.ndarray, " captions"],
    missing: Bool[np.ndarray, " videos"],
    extra: Extra,
    positives: Positives = "own",
    texts: Sequence[str] = (),
) -> RetrievalScores:
    """R@1/5/10 (percent), MedR and MnR in both directions, and what `extra` asks for.

    Args:
      video: embeddings; rows of missing videos are ignored.
      text: embeddings of all captions.
      owner: the video (row) of each caption; several captions a video are each a text-to-video query, and the
        best-ranked of them counts video-to-text.
      missing: videos that could not be read; they stay in the gallery and have the last rank.
      extra: columns that use all test queries at once, or a query bank: not to be compared with plain scores.
      positives: which videos are right for a caption.
      texts: the captions; needed unless `positives` is "own".

    Returns:
      See `retrieval_scores.scores`. The matrix of cosines is never in memory as a whole: `tallies` gives the bound.

    Raises:
      NonFiniteError: an embedding is zero or not finite.
      DataError: a video has no caption.
    """
    return scores(arrange(video, text, owner, missing, positives, texts), extra)
