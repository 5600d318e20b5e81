"""Texts that tokenizers get wrong, and captions of real data sets where they are available."""

import json
import random
import unicodedata
from collections.abc import Iterator
from typing import Any

from tests.helpers.annotations import ANNOTATIONS

# What tokenizers get wrong: specials inside text, contractions, odd letters and cases, entities, broken encodings,
# control characters, odd spaces, digits, scripts without spaces, joined emoji.
BITS = [
    *("<|startoftext|>", "<|endoftext|>", "<|STARTOFTEXT|>", "<|", "|>", "</w>", "/w>"),
    *("'s", "'t", "'re", "'VE", "'m", "'LL", "'d", "’s", "'ſ", "'tis", "o'clock", "rock'n'roll", "don't", "'", "''"),
    *("ſ", "K", "İ", "ı", "ß", "ẞ", "Σ", "ς", "ﬁ", "ﬆ", "ǅ", "ŉ", "ΐ", "ﬀ", "\u0307", "\u0345", "e\u0301", "Å", "𝕏"),
    *("&amp;", "&lt;", "&amp;lt;", "&nbsp;", "&#39;", "&quot;", "&#x2028;", "&#xFB06;", "&#0;", "&#128;", "&eacute"),
    *("Ã©", "â€™", "schÃ¶n", "“", "”", "…", "—", "™", "é", "ñ", "\ud800", "\U00010400"),
    *("\x00", "\x1b[31m", "\x1c", "\x1f", "\x7f", "\x85", "\t", "\n", "\r\n", "\v", "\f", " ", "  ", "\u00a0"),
    *(
        "\u2003",
        "\u2028",
        "\u3000",
        "\u200b",
        "\u200d",
        "\ufeff",
        "_",
        "__",
        "-",
        "...",
        "!!!",
        '"',
        "(",
        "]",
        "|",
        "<",
    ),
    *("0", "12", "3.14", "１２", "٣", "½", "²", "Ⅷ", "😀", "👨‍👩‍👧", "🏳️‍🌈", "🇩🇪"),
    *("日本語", "中文", "한국어", "ภาษาไทย", "हिन्दी", "العربية", "עברית", "Ελληνικά", "Русский"),
    *("cat", "DOG", "Running", "a", "I", "the", "#tag", "@user", "http://a.b/c?d=e&f=g", "a_b", "x" * 80, "ab" * 40),
]


def made_up(count: int, seed: int) -> list[str]:
    """Random strings of the above and of characters that every supported Python knows."""
    rng = random.Random(seed)
    known = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
    ascii_or_known = [lambda: chr(rng.randint(32, 126)), lambda: rng.choice(known)]
    texts = []
    for i in range(count):
        if i % 3 == 2:
            texts.append("".join(rng.choice(ascii_or_known)() for _ in range(rng.randint(1, 40))))
        else:
            texts.append(" "[: i % 3].join(rng.choice(BITS) for _ in range(rng.randint(1, 12))))
    return texts


def captions(count: int, seed: int) -> list[str]:
    """A sample of the lines and of the strings in every annotation file; made up where there are none."""
    found: set[str] = set()
    for path in sorted(ANNOTATIONS.rglob("*")) if ANNOTATIONS.is_dir() else []:
        if path.suffix == ".json":
            found.update(_strings(json.loads(path.read_text(encoding="utf-8"))))
        elif path.is_file():
            found.update(path.read_text(encoding="utf-8").splitlines())
    rng = random.Random(seed)
    return rng.sample(sorted(found), count) if len(found) >= count else _sentences(count, rng)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _sentences(count: int, rng: random.Random) -> list[str]:
    """Caption-like sentences."""
    who = ["a man", "A woman", "two Dogs", "someone's cat", "the child", "An SUV", "3 people", "John's band"]
    does = ["is riding", "jumps over", "doesn't see", "cooks", "talks about", "plays with", "cuts", "RUNS past"]
    what = ["a horse", "the fence", "minecraft", "pasta & rice", "a 20-year-old car", "the U.S. team", "it"]
    ends = ["", ".", " ...", "!", " in slow-motion.", " (HD)", ' while singing "la la"', ", 4:30 p.m."]
    return [f"{rng.choice(who)} {rng.choice(does)} {rng.choice(what)}{rng.choice(ends)}" for _ in range(count)]
