"""What is in a shard folder: counts, sizes, a picture of some clips with their captions."""

import collections
import csv
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from data_pipeline.make_shards import count_reasons
from data_pipeline.manifest import Reject
from data_pipeline.shard_format import Record, ShardSource, open_shards, parse, read_info, split_lengths

_SAMPLE = 2000  # records looked into per split
_SHEET_CLIPS = 12
_SHEET_FRAMES = 8
_TILE = 128  # pixels, height of a frame on the sheet
_GAP = 3


def describe(folder: str | Path, contact_sheet: Path | None = None) -> dict[str, Any]:
    """A shard folder in numbers, ready for JSON.

    Lengths, sizes and histograms are of up to 2,000 records a split, evenly spread (`sampled` says how many).

    Args:
      folder: made by `harvest shards`.
      contact_sheet: PNG file to draw some clips of every split into.

    Raises:
      DataError: the folder cannot be read.
    """
    folder = Path(folder)
    version = read_info(folder).get("version")
    splits: dict[str, Any] = {}
    drawn: list[tuple[str, Record]] = []
    names = sorted(split_lengths(folder))
    for name in names:
        source = open_shards(folder, name)
        splits[name] = _describe_split(source) | {"rejects": _rejects(folder / f"rejects-{name}.tsv")}
        rows = max(1, _SHEET_CLIPS // len(names))
        drawn += [(name, parse(source[index])) for index in _spread(len(source), rows)]
    if contact_sheet is not None:
        draw_contact_sheet(drawn).save(contact_sheet, format="PNG")
    return {"kind": "shards", "folder": str(folder), "version": version, "splits": splits}


def _spread(count: int, wanted: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int)).tolist()


def _describe_split(source: ShardSource) -> dict[str, Any]:
    frames: collections.Counter[int] = collections.Counter()
    sizes: collections.Counter[str] = collections.Counter()
    captions: list[int] = []
    caption_characters: list[int] = []
    record_bytes: list[int] = []
    columns: set[str] = set()
    indices = _spread(len(source), _SAMPLE)
    for index in indices:
        raw = source[index]
        record = parse(raw)
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


def _rejects(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {"count": 0, "reasons": {}}
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        rejects = [Reject(line["id"], line["video"], line["reason"]) for line in lines]
    return {"count": len(rejects), "reasons": count_reasons(rejects)}


def format_description(description: dict[str, Any]) -> str:
    """The numbers of `describe` as text for people."""
    lines = [f"{description['folder']}: shards, format {description['version']}"]
    for name, split in description["splits"].items():
        text, per_clip = split["caption_characters"], split["captions_per_clip"]
        frames = ", ".join(f"{count} x {number}" for number, count in split["frames"].items())
        sizes = ", ".join(f"{size} ({count})" for size, count in list(split["source_sizes"].items())[:5])
        plural = "s" * (split["shards"] != 1)
        lines += [
            f"  {name}: {split['clips']:,} clips, {split['shards']} shard{plural}, {split['bytes'] / 1e6:,.1f} MB, "
            f"{split['bytes_per_clip'] / 1e3:,.0f} kB a clip",
            f"    frames a clip   {frames}" + (f"   (of {split['sampled']:,} clips looked into)" * _is_sample(split)),
            f"    captions        {per_clip['mean']:g} a clip, {text['median']:g} characters (median), "
            f"{text['min']:g} to {text['max']:g}",
            f"    source sizes    {sizes}",
        ]
        if split["columns"]:
            lines.append(f"    other columns   {', '.join(split['columns'])}")
        if split["rejects"]["count"]:
            reasons = ", ".join(f"{count} x {kind}" for kind, count in split["rejects"]["reasons"].items())
            lines.append(f"    rejected        {split['rejects']['count']}: {reasons}")
    return "\n".join(lines)


def _is_sample(split: dict[str, Any]) -> bool:
    return bool(split["sampled"] < split["clips"])


def draw_contact_sheet(clips: list[tuple[str, Record]]) -> Image.Image:
    """One row a clip: its split and id, its first caption, evenly spaced frames."""
    font = ImageFont.load_default(size=14)
    strips = [_tiles(record) for _, record in clips]
    width = max([480, *(sum(tile.width + _GAP for tile in tiles) for tiles in strips)])
    row_height = _TILE + 44
    sheet = Image.new("RGB", (width + 16, row_height * len(clips) + 8), "#eeeeee")
    draw = ImageDraw.Draw(sheet)
    for index, ((split, record), tiles) in enumerate(zip(clips, strips, strict=True)):
        top = 8 + index * row_height
        title = f"{split}  {record.id}  ({record.width}x{record.height}, {len(record.jpegs)} frames)"
        caption = record.captions[0] if record.captions else str(record.extra)
        draw.text((8, top), _fit(title, font, width), fill="#666666", font=font)
        draw.text((8, top + 17), _fit(caption, font, width), fill="black", font=font)
        left = 8
        for tile in tiles:
            sheet.paste(tile, (left, top + 36))
            left += tile.width + _GAP
    return sheet


def _tiles(record: Record) -> list[Image.Image]:
    tiles = []
    for index in _spread(len(record.jpegs), _SHEET_FRAMES):
        picture = Image.fromarray(decode_jpeg(record.jpegs[index]))
        width = max(1, round(picture.width * _TILE / picture.height))
        tiles.append(picture.resize((width, _TILE), Image.Resampling.BICUBIC))
    return tiles


def decode_jpeg(jpeg: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """A stored frame as RGB."""
    import simplejpeg

    return simplejpeg.decode_jpeg(jpeg, colorspace="RGB")


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
