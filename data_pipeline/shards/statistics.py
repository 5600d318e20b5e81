"""Statistics of a shard folder: counts, sizes, captions, rejects. contact_sheet.py draws the clips."""

import collections
import math
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.shards.contact_sheet import SplitRecord, draw_contact_sheet, evenly_spread, html_sheet, ranges_of
from data_pipeline.shards.rejects import read_rejects
from data_pipeline.shards.shard_format import ShardSource, open_shards, parse_record, read_info, split_lengths
from harvest_jax.terminal import printable

_SAMPLE = 2000  # records that are read per split
_SHEET_CLIPS = 12  # of all splits together
_PAGE_CLIPS = 48
_BINS = 8
_BAR = 30  # characters of the longest bar


def describe(folder: str | Path, contact_sheet: Path | None = None, page: Path | None = None) -> dict[str, Any]:
    """The statistics of a shard folder, ready for JSON.

    Lengths, sizes and histograms are from up to 2,000 records per split, evenly spread; `sampled` is their number.

    Args:
      folder: made by `harvest shards`.
      contact_sheet: PNG file to draw some clips of every split into.
      page: HTML file for the statistics and more clips, with every caption.

    Raises:
      DataError: the folder cannot be read.
      OSError: a file cannot be written.
    """
    folder = Path(folder)
    version = read_info(folder).get("version")
    splits: dict[str, Any] = {}
    drawn: list[SplitRecord] = []
    shown: list[SplitRecord] = []
    names = sorted(split_lengths(folder))
    for name in names:
        source = open_shards(folder, name)
        splits[name] = _describe_split(source) | {"rejects": _reject_kinds(folder, name)}
        for clips, wanted, where in ((drawn, _SHEET_CLIPS, contact_sheet), (shown, _PAGE_CLIPS, page)):
            if where is not None:
                indices = evenly_spread(len(source), max(1, wanted // len(names)))
                clips += [(name, parse_record(source[index])) for index in indices]
    if contact_sheet is not None:
        draw_contact_sheet(drawn).save(contact_sheet, format="PNG")
    if page is not None:
        page.write_text(html_sheet(folder.resolve().name, splits, shown), encoding="utf-8")
    return {"kind": "shards", "folder": str(folder), "version": version, "splits": splits}


def _describe_split(source: ShardSource) -> dict[str, Any]:
    frames: collections.Counter[int] = collections.Counter()
    sizes: collections.Counter[str] = collections.Counter()
    captions: list[int] = []
    caption_characters: list[int] = []
    record_bytes: list[int] = []
    columns: set[str] = set()
    indices = evenly_spread(len(source), _SAMPLE)
    for index in indices:
        raw = source[index]
        record = parse_record(raw)
        frames[len(record.jpegs)] += 1
        sizes[f"{record.width}x{record.height}"] += 1
        captions.append(len(record.captions))
        caption_characters += map(len, record.captions)
        record_bytes.append(len(raw))
        columns |= set(record.extra)
    return {
        "clips": len(source),
        "shards": len(source.paths),
        "bytes": sum(path.stat().st_size for path in source.paths),
        "digest": source.digest,
        "sampled": len(indices),
        "bytes_per_clip": float(np.mean(record_bytes)),
        "frames": {str(count): number for count, number in sorted(frames.items())},
        "source_sizes": dict(sizes.most_common(20)),
        "captions_per_clip": _statistics(captions),
        "caption_characters": _statistics(caption_characters),
        "columns": sorted(columns),
        "histograms": {
            "record_bytes": _histogram(record_bytes),
            "caption_characters": _histogram(caption_characters),
        },
    }


def _statistics(values: list[int]) -> dict[str, float]:
    if not values:
        return dict.fromkeys(("min", "median", "mean", "max"), 0.0)
    return {
        "min": float(min(values)),
        "median": float(np.median(values)),
        "mean": round(float(np.mean(values)), 2),
        "max": float(max(values)),
    }


def _histogram(values: list[int]) -> dict[str, list[int]]:
    """`edges` at round numbers and the `counts` from each edge to the next; the last bin is open.

    The bins span all values except the largest 5 %, so that a single very large value does not widen them.
    """
    if not values:
        return {"edges": [], "counts": []}
    low, high = min(values), float(np.quantile(values, 0.95, method="nearest"))
    width = max(1, math.ceil(high - low) / _BINS)
    power = 10 ** math.floor(math.log10(width))
    width = next(step * power for step in (1, 2, 5, 10) if step * power >= width)
    edges = list(range(low // width * width, math.floor(high) + 1, width))
    counts = np.bincount(np.searchsorted(edges, values, side="right") - 1, minlength=len(edges))
    return {"edges": edges, "counts": counts.tolist()}


def _reject_kinds(folder: Path, split: str) -> dict[str, Any]:
    """The number of rejects, and of each kind (the part of the reason before the colon), the most frequent first."""
    kinds = collections.Counter(reason.split(":", 1)[0] for _, _, reason in read_rejects(folder, split))
    return {"count": kinds.total(), "reasons": dict(kinds.most_common())}


def format_description(description: dict[str, Any]) -> str:
    """The statistics of `describe` as text."""
    lines = [f"{description['folder']}: shards, format {description['version']}"]
    for name, split in description["splits"].items():
        text, per_clip = split["caption_characters"], split["captions_per_clip"]
        frames = ", ".join(f"{count} x {number}" for number, count in split["frames"].items())
        sizes = ", ".join(f"{size} ({count})" for size, count in list(split["source_sizes"].items())[:5])
        plural = "s" * (split["shards"] != 1)
        lines += [
            f"  {name}: {split['clips']:,} clips, {split['shards']} shard{plural}, {split['bytes'] / 1e6:,.1f} MB, "
            f"{split['bytes_per_clip'] / 1e3:,.0f} kB per clip",
            f"    frames per clip {frames}"
            + (f"   (of {split['sampled']:,} clips that were read)" * _is_sample(split)),
            f"    captions        {per_clip['mean']:g} per clip, {text['median']:g} characters (median), "
            f"{text['min']:g} to {text['max']:g}",
            f"    source sizes    {sizes}",
        ]
        if split["columns"]:
            lines.append(f"    other columns   {', '.join(split['columns'])}")
        if split["rejects"]["count"]:
            reasons = ", ".join(f"{count} x {kind}" for kind, count in split["rejects"]["reasons"].items())
            lines.append(f"    rejected        {split['rejects']['count']}: {reasons}")
        lines += _bars("kB per clip", ranges_of(split["histograms"]["record_bytes"], 1000))
        lines += _bars("characters", ranges_of(split["histograms"]["caption_characters"]))
    return "\n".join(map(printable, lines))  # names of columns are untrusted


def _bars(name: str, ranges: list[tuple[str, int]]) -> list[str]:
    most = max((count for _, count in ranges), default=1)
    names = [name, *[""] * len(ranges)]
    return [
        f"    {title:<15} {words:<14} {count:>7,} {'#' * math.ceil(_BAR * count / most)}".rstrip()
        for title, (words, count) in zip(names, ranges, strict=False)
    ]


def _is_sample(split: dict[str, Any]) -> bool:
    return bool(split["sampled"] < split["clips"])
