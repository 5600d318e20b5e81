"""A tokenizer that comes with a model as `tokenizer.json`, the file of the `tokenizers` library: SigLIP's, SigLIP 2's.

The file has the vocabulary and the splitting. What is done to a text before, and what is put around its tokens, it does
not have reliably; that is written here, as transformers' `SiglipTokenizer` and `Siglip2Tokenizer` do it.

SigLIP (a sentencepiece vocabulary with "</s>"): lower case, without ASCII punctuation, one space for any whitespace;
the end token, which is the padding too. SigLIP 2 (Gemma's vocabulary with "<eos>"): lower case; the end token, then
"<pad>". Neither has a start token.
"""

import functools
import hashlib
import re
import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from jaxtyping import Int, Int32

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.input.tokenizer import Tokenizer
from harvest_jax.terminal import printable

SIZE_LIMIT = 256 << 20  # bytes; Gemma's has 34 MB
PUNCTUATION = str.maketrans("", "", string.punctuation)


class FileTokenizer:
    """Text to the ids of a model's own vocabulary and back; an end token follows the words, then padding."""

    sot = None  # no start token
    around = 1  # tokens of a text beside its words

    def __init__(self, path: Path, digest: str, vocab_size: int) -> None:
        """Read the file.

        Args:
          path: of a `tokenizer.json`.
          digest: the SHA-256 that the file must have, in hex; "": any.
          vocab_size: rows of the model's table of tokens.

        Raises:
          DataError: the file is missing, another one, damaged, or none of SigLIP's or SigLIP 2's kind; or it has ids
            beyond the model's table.
        """
        self.path, self.vocab_size = path, vocab_size
        self.digest, self._backend = _read(path)
        if digest and self.digest != digest:
            raise DataError(f"{path} is not the tokenizer of this model: its SHA-256 is {self.digest}, not {digest}")
        known = self._backend.get_vocab(with_added_tokens=True)
        self.gemma = "<eos>" in known
        if not self.gemma and "</s>" not in known:
            raise DataError(f"{path} is not the tokenizer of SigLIP or SigLIP 2: it has neither </s> nor <eos>")
        if self.gemma and "<pad>" not in known:
            raise DataError(f"{path} is not the tokenizer of SigLIP 2: it has no <pad>")
        self.eot: int = known["<eos>" if self.gemma else "</s>"]
        self.pad: int = known["<pad>"] if self.gemma else self.eot
        largest = max(known.values())
        if largest >= vocab_size:
            raise DataError(
                f"{path} is not the tokenizer of this model: its ids go to {largest}, the model has {vocab_size}"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return (FileTokenizer, (self.path, self.digest, self.vocab_size))  # loader processes read the file again

    def encode(self, text: str) -> list[int]:
        """Ids of one text's words."""
        ids: list[int] = self._backend.encode(self._clean(text), add_special_tokens=False).ids
        return ids

    def __call__(self, texts: Sequence[str], length: int) -> Int32[np.ndarray, "N {length}"]:
        """Ids of many texts: words, end, padding. A longer text is cut and still ends with the end token."""
        if length < 2:
            raise ConfigError(f"text length {length} has no room for a word and the end token")
        rows = np.full((len(texts), length), self.pad, np.int32)
        cleaned = [self._clean(text) for text in texts]
        for row, encoding in zip(rows, self._backend.encode_batch(cleaned, add_special_tokens=False), strict=True):
            ids = encoding.ids[: length - 1]
            row[: len(ids)] = ids
            row[len(ids)] = self.eot
        return rows

    def decode(self, ids: Iterable[int] | Int[np.ndarray, " n"]) -> str:
        """Cleaned text of ids, up to the end token."""
        words: list[int] = []
        for number in map(int, ids):
            if number == self.eot:
                break
            words.append(number)
        text: str = self._backend.decode(words)
        return text.strip()

    def _clean(self, text: str) -> str:
        text = text.lower()
        return text if self.gemma else re.sub(r"\s+", " ", text.translate(PUNCTUATION)).strip()


TextTokenizer = Tokenizer | FileTokenizer
"""What every model has one of."""


@functools.lru_cache(maxsize=2)
def _read(path: Path) -> tuple[str, Any]:
    """The file's SHA-256 and the library's tokenizer, without padding or truncation of its own."""
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise DataError(f"{path} is not used: it is larger than {SIZE_LIMIT} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"the model's tokenizer {path} cannot be read: {error.strerror or error}") from error
    try:
        backend = tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises plain Exception for whatever is wrong
        raise DataError(f"{path} is not a file of the tokenizers library: {printable(error, 200)}") from error
    backend.no_padding()
    backend.no_truncation()
    return hashlib.sha256(content).hexdigest(), backend
