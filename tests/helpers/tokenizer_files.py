"""Small files of the tokenizers library, of the two kinds that models bring: sentencepiece's and Gemma's."""

from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_sentencepiece(path: Path) -> Path:
    """32 entries: padding that is not used, </s>, <unk>, letters, two words, with a metaspace before words."""
    pieces = ["<pad>", "</s>", "<unk>", *LETTERS, "▁", "▁a", "dog"]
    backend = tokenizers.Tokenizer(models.Unigram([(piece, -float(len(LETTERS))) for piece in pieces], unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens(["<pad>", "</s>", "<unk>"])
    backend.save(str(path))
    return path


def write_gemma(path: Path, end: str = "<eos>") -> Path:
    """Padding, end, start, unknown, letters, signs and a merge; spaces are part of words."""
    pieces = ["<pad>", end, "<bos>", "<unk>", *LETTERS, "▁", "!", "do", "dog"]
    numbered = {piece: number for number, piece in enumerate(pieces)}
    merges = [("d", "o"), ("do", "g")]
    backend = tokenizers.Tokenizer(models.BPE(numbered, merges, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    backend.add_special_tokens(["<pad>", end, "<bos>", "<unk>"])
    backend.save(str(path))
    return path
