"""CLIP's tokenizer: text -> ids, equal to the reference implementation (openai/CLIP, simple_tokenizer.py).

The byte-pair merging runs in the `tokenizers` library over CLIP's own merges (`vocab/SOURCE.md`). Cleaning happens
here, with the same functions as the reference: ftfy, HTML entities twice, one space for any whitespace, lower case.
"""

import functools
import gzip
import html
import json
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import ftfy
import numpy as np
import tokenizers
from jaxtyping import Int, Int32
from tokenizers import models, pre_tokenizers, processors

from harvest_jax.errors import ConfigError

VOCAB_SIZE = 49408
SOT_TEXT, EOT_TEXT = "<|startoftext|>", "<|endoftext|>"

# What \s means to the `regex` package (Unicode's White_Space); Python's own re adds U+001C..U+001F.
_WHITESPACE = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")

# The reference's pieces: the two specials, contractions, runs of letters, single digits, runs of anything else. It
# ignores case, which on lower-cased text matters for two characters: the long s, equal to s there, and U+0345, a mark
# whose upper case is a letter, so that it fits no class and is dropped. Plain spaces are the only whitespace left.
_PIECES = (
    r"<\|[sſ]tartoftext\|>|<\|endoftext\|>|'[sſ]|'t|'re|'ve|'m|'ll|'d"
    "|[\\p{L}]+|[\\p{N}]|[^ \u0345\\p{L}\\p{N}]+"
)


def clean(text: str) -> str:
    """Text with broken encodings repaired, entities unescaped, spaces single and letters in lower case, as in CLIP."""
    # Printable ASCII without "&" is what ftfy and unescape leave alone, and most captions are that: 10 times faster.
    if not (text.isascii() and text.isprintable() and "&" not in text):
        text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return _WHITESPACE.sub(" ", text).strip().lower()


class Tokenizer:
    """Text to CLIP's token ids and back.

    Ids: 256 bytes, 256 bytes that end a word, one per merge, start of text, end of text. A `vocab_size` below CLIP's
    49,408 keeps only the first `vocab_size - 514` merges: the same text in more and shorter tokens, for small models.

    Raises:
      ConfigError: `vocab_size` outside 514..49408.
    """

    pad = 0
    around = 2  # tokens of a text beside its words

    def __init__(self, vocab_size: int = VOCAB_SIZE) -> None:
        if not 514 <= vocab_size <= VOCAB_SIZE:
            raise ConfigError(f"vocab_size={vocab_size} is outside 514..{VOCAB_SIZE} (514 + merges of CLIP's)")
        self.vocab_size = vocab_size
        self.sot = vocab_size - 2
        self.eot = vocab_size - 1
        self._backend, self._pieces = _backend(vocab_size)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Tokenizer, (self.vocab_size,))  # loader processes read the merges from the package

    def encode(self, text: str) -> list[int]:
        """Ids of one text, without start and end."""
        text = clean(text)
        if SOT_TEXT in text or EOT_TEXT in text:
            return self._encode_with_specials(text)
        return self._backend.encode(text).ids

    def __call__(self, texts: Sequence[str], length: int) -> Int32[np.ndarray, "N {length}"]:
        """Ids of many texts: start, words, end, zeros. A longer text is cut and still ends with the end token."""
        if length < 2:
            raise ConfigError(f"text length {length} has no room for the start and end tokens")
        rows = np.zeros((len(texts), length), np.int32)
        for row, ids in zip(rows, self._encode_many(texts), strict=True):
            ids = ids[: length - 2]
            row[0] = self.sot
            row[1 : len(ids) + 1] = ids
            row[len(ids) + 1] = self.eot
        return rows

    def decode(self, ids: Iterable[int] | Int[np.ndarray, " n"]) -> str:
        """Cleaned text of ids: start is skipped, reading stops at the end token, broken UTF-8 becomes U+FFFD.

        Raises:
          ValueError: an id outside the vocabulary.
        """
        units: list[str] = []
        for number in map(int, ids):
            if not 0 <= number < self.vocab_size:
                raise ValueError(f"token id {number} is outside 0..{self.vocab_size - 1}")
            if number == self.eot:
                break
            if number != self.sot:
                units.append(self._pieces[number])
        raw = bytearray()
        for unit in units:
            word, ends = (unit[:-4], b" ") if unit.endswith("</w>") else (unit, b"")
            raw += bytes(_UNIT_BYTES[c] for c in word) + ends
        return raw.decode("utf-8", errors="replace").strip()

    def save_vocabulary(self, folder: Path) -> None:
        """Write `vocab.json` and `merges.txt`, the two files that transformers' `CLIPTokenizer` reads."""
        self._backend.model.save(str(folder))

    def hugging_face(self) -> dict[str, Any]:
        """`tokenizer.json` of transformers' fast tokenizers: the same ids of text that is `clean` already."""
        copy = tokenizers.Tokenizer.from_str(self._backend.to_str())
        specials = [(SOT_TEXT, self.sot), (EOT_TEXT, self.eot)]
        copy.add_special_tokens([tokenizers.AddedToken(text, special=True, normalized=False) for text, _ in specials])
        copy.post_processor = processors.TemplateProcessing(single=f"{SOT_TEXT} $A {EOT_TEXT}", special_tokens=specials)
        values: dict[str, Any] = json.loads(copy.to_str())
        return values

    def _encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        if len(texts) < 16:  # no thread pool for one caption in a loader process
            return [self.encode(text) for text in texts]
        cleaned = [clean(text) for text in texts]
        encoded = [encoding.ids for encoding in self._backend.encode_batch_fast(cleaned)]
        for i, text in enumerate(cleaned):
            if SOT_TEXT in text or EOT_TEXT in text:
                encoded[i] = self._encode_with_specials(text)
        return encoded

    def _encode_with_specials(self, text: str) -> list[int]:
        """The reference turns a special's own name into its id, but only where the splitting finds it as a piece."""
        specials = {SOT_TEXT: self.sot, EOT_TEXT: self.eot}
        ids: list[int] = []
        for piece, _ in self._backend.pre_tokenizer.pre_tokenize_str(text):
            if piece in specials:
                ids.append(specials[piece])
            else:
                ids.extend(token.id for token in self._backend.model.tokenize(piece))
        return ids


def _byte_units() -> dict[int, str]:
    """Byte -> the printable character that stands for it in the merges (GPT-2's alphabet), in vocabulary order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


_UNIT_BYTES = {unit: byte for byte, unit in _byte_units().items()}


@functools.cache
def _backend(vocab_size: int) -> tuple[Any, tuple[str, ...]]:
    """The library's tokenizer and the text of every id; one per size and process."""
    packed = resources.files("harvest_jax.input").joinpath("vocab/clip_merges.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").splitlines()[: vocab_size - 514]
    merges: list[tuple[str, str]] = [(first, second) for first, second in (line.split(" ") for line in lines)]
    units = list(_byte_units().values())
    pieces = [*units, *(unit + "</w>" for unit in units), *(a + b for a, b in merges), SOT_TEXT, EOT_TEXT]
    numbered = {piece: i for i, piece in enumerate(pieces)}
    model = models.BPE(vocab=numbered, merges=merges, end_of_word_suffix="</w>", cache_capacity=50_000)
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return backend, tuple(pieces)
