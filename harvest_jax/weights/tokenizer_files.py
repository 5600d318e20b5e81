"""The files of transformers' `CLIPTokenizer`, for programs that have no tokenizer of this package."""

import json
from pathlib import Path

from harvest_jax.input.tokenizer import Tokenizer
from harvest_jax.model.config import HarvestConfig


def write_tokenizer(folder: Path, config: HarvestConfig) -> None:
    """Write them into a folder; the vocabulary and merges here are CLIP's, or the first of them."""
    Tokenizer(config.text.vocab_size).save_vocabulary(folder)
    end, start = "<|endoftext|>", "<|startoftext|>"
    special = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end}
    length = config.text.context_length
    for name, values in (
        ("special_tokens_map.json", special),
        ("tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer", "model_max_length": length} | special),
    ):
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
