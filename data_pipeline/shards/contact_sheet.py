"""Clips of a shard folder to look at: as one picture, and as an HTML page with every caption in full.

Captions, ids and the manifest's other columns are untrusted: on the page they are escaped, each has its own direction
of writing, and the page's policy forbids the browser to load or run anything.
"""

import base64
import bisect
import html
import itertools
import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image, ImageDraw, ImageFont

from data_pipeline.shards.shard_format import Record, decode_frame
from harvest_jax.errors import DataError
from harvest_jax.terminal import one_line

SplitRecord = tuple[str, Record]  # name of the split, record
_FRAMES = 8
_TILE = 128  # pixels, height of a frame
_GAP = 3
_LONGEST = 1000  # characters of a text for the picture, and of a column on the page

_STYLE = """
body { font: 15px/1.45 system-ui, "Noto Sans", "Noto Sans CJK SC", sans-serif; margin: 2em auto; max-width: 1200px;
  padding: 0 1em; color: #222; background: #fafafa }
h1 { font-size: 1.4em } h2 { font-size: 1.1em; margin-top: 2em }
table { border-collapse: collapse; margin: .6em 0 } td, th { padding: .1em .8em .1em 0; text-align: left;
  vertical-align: top; font-weight: normal } th { color: #666 } td.n { text-align: right }
.bar { background: #7a9cc6; height: .8em; display: inline-block }
.all { display: flex; flex-wrap: wrap; gap: 0 4em; align-items: flex-start }
.clip { background: #fff; border: 1px solid #ddd; border-radius: 4px; padding: .7em .9em; margin: .8em 0 }
.frames { display: flex; gap: 3px; align-items: flex-start; margin-bottom: .4em }
.frames img { min-width: 0; height: auto }
.clip p { margin: .15em 0; overflow-wrap: anywhere } .dim { color: #777; font-size: .87em }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def draw_contact_sheet(clips: Sequence[SplitRecord]) -> Image.Image:
    """One row per clip: its split and id, its first caption, evenly spaced frames.

    Pillow's font has Latin, Greek and Cyrillic letters; `html_sheet` shows all scripts.

    Raises:
      DataError: a picture is damaged.
    """
    font = ImageFont.load_default(size=14)
    strips = [_tiles(record) for _, record in clips]
    width = max([480, *(sum(tile.width + _GAP for tile in tiles) for tiles in strips)])
    row_height = _TILE + 44
    sheet = Image.new("RGB", (width + 16, row_height * len(clips) + 8), "#eeeeee")
    draw = ImageDraw.Draw(sheet)
    for index, ((split, record), tiles) in enumerate(zip(clips, strips, strict=True)):
        top = 8 + index * row_height
        caption = record.captions[0] if record.captions else str(record.extra)
        draw.text((8, top), _fit(f"{split}  {_facts(record)}", font, width), fill="#666666", font=font)
        draw.text((8, top + 17), _fit(caption, font, width), fill="black", font=font)
        left = 8
        for tile in tiles:
            sheet.paste(tile, (left, top + 36))
            left += tile.width + _GAP
    return sheet


def html_sheet(title: str, splits: Mapping[str, Mapping[str, Any]], clips: Sequence[SplitRecord]) -> str:
    """A page in one file: the statistics of every split, then clips with frames, captions and columns.

    Args:
      title: the folder's name.
      splits: of `statistics.describe`.
      clips: each with its split.

    Raises:
      DataError: a picture is damaged.
    """
    parts = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style></head><body>\n<h1>{_bdi(title)}</h1>"
    ]
    for name, split in splits.items():
        parts.append(f"<h2>{_text(name)}</h2>\n{_numbers(split)}")
        parts += [_card(record) for of, record in clips if of == name]
    return "\n".join([*parts, "</body></html>\n"])


def _numbers(split: Mapping[str, Any]) -> str:
    rows = {
        "clips": f"{split['clips']:,}",
        "shards": f"{split['shards']:,}, {split['bytes'] / 1e6:,.1f} MB",
        "sampled": f"{split['sampled']:,} clips",
        "frames per clip": ", ".join(f"{count} ({number:,})" for count, number in split["frames"].items()),
        "captions per clip": f"{split['captions_per_clip']['mean']:g}",
        "source sizes": ", ".join(f"{size} ({count:,})" for size, count in list(split["source_sizes"].items())[:10]),
        "other columns": ", ".join(split["columns"]),
        "rejected": f"{split['rejects']['count']:,}",
    }
    facts = "".join(f"<tr><th>{name}</th><td>{_bdi(value)}</td></tr>" for name, value in rows.items() if value)
    tables = [f"<table>{facts}</table>"]
    named = {"kB per clip": ("record_bytes", 1000), "characters per caption": ("caption_characters", 1)}
    for name, (key, unit) in named.items():
        ranges = ranges_of(split["histograms"][key], unit)
        if ranges:
            tables.append(_bars(name, ranges))
    if split["rejects"]["count"]:
        tables.append(_bars("why rejected", list(split["rejects"]["reasons"].items())))
    return f'<div class="all">{"".join(tables)}</div>'


def _bars(name: str, counts: Sequence[tuple[str, int]]) -> str:
    most = max(count for _, count in counts)
    rows = "".join(
        f'<tr><td>{_bdi(label)}</td><td class="n">{count:,}</td>'
        f'<td><span class="bar" style="width:{round(120 * count / most)}px"></span></td></tr>'
        for label, count in counts
    )
    return f'<table><tr><th colspan="3">{name}</th></tr>{rows}</table>'


def ranges_of(histogram: Mapping[str, list[int]], unit: int = 1) -> list[tuple[str, int]]:
    """The bins of a histogram of `statistics.describe` as text, and their counts; edges are divided by `unit`."""
    edges, counts = [edge / unit for edge in histogram["edges"]], histogram["counts"]
    words = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)]
    return list(zip([*words, *(f"{edge:g} and more" for edge in edges[-1:])], counts, strict=True))


def _card(record: Record) -> str:
    images = "".join(
        f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(_jpeg(tile)).decode()}">' for tile in _tiles(record)
    )
    captions = "".join(f"<p>{_bdi(caption)}</p>" for caption in record.captions)
    extra = f'<p class="dim">{_bdi(_short(json.dumps(record.extra, ensure_ascii=False)))}</p>' if record.extra else ""
    facts = f'<p class="dim">{_bdi(_facts(record))}</p>'
    return f'<div class="clip"><div class="frames">{images}</div>{captions}{facts}{extra}</div>'


def _facts(record: Record) -> str:
    count = len(record.jpegs)
    return f"{record.id}  ({record.width}x{record.height}, {count} frame{'s' * (count != 1)})"


def _text(text: str) -> str:
    """Escaped, without control characters, which are not allowed in HTML."""
    kept = (letter if letter in "\n\t" or unicodedata.category(letter) != "Cc" else "�" for letter in text)
    return html.escape("".join(kept))


def _bdi(text: str) -> str:
    return f"<bdi>{_text(text)}</bdi>"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def _tiles(record: Record) -> list[Image.Image]:
    tiles = []
    for index in evenly_spread(len(record.jpegs), _FRAMES):
        try:
            picture = Image.fromarray(decode_frame(record.jpegs[index]))
        except ValueError as error:
            raise DataError(f"frame {index} of {record.id} is damaged: make the shards again") from error
        width = max(1, round(picture.width * _TILE / picture.height))
        tiles.append(picture.resize((width, _TILE), Image.Resampling.BICUBIC))
    return tiles


def _jpeg(tile: Image.Image) -> bytes:
    return simplejpeg.encode_jpeg(np.asarray(tile), quality=80, colorspace="RGB")


def evenly_spread(count: int, wanted: int) -> list[int]:
    """Up to `wanted` indices from 0 to `count` - 1, ascending."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int)).tolist()


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text on one line, cut to the width in pixels."""
    text = one_line(text[:_LONGEST])
    if font.getlength(text) <= width:
        return text
    length = bisect.bisect_right(range(len(text)), width, key=lambda end: math.ceil(font.getlength(text[:end] + "...")))
    return text[: max(0, length - 1)] + "..."
