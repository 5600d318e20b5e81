"""The files of transformers' `CLIPTokenizer`, for programs that have no tokenizer of this package; those of others."""

import json
from pathlib import Path

from harvest_jax.errors import DataError
from harvest_jax.input.tokenizer import Tokenizer
from harvest_jax.model.config import HarvestConfig
from harvest_jax.weights.files.open_checkpoint import TOKENIZER, read_json

VOCABULARY = "vocab.json"


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


def check_clip_tokenizer(folder: Path, vocab_size: int) -> None:
    """Refuse a folder whose tokenizer gives other ids than CLIP's, which its texts would be read with.

    The names of the start and end tokens do not count. A folder without such a file passes.

    Raises:
      DataError: a word has another id there.
    """
    for name in (TOKENIZER, VOCABULARY):
        if (folder / name).is_file():
            found = read_json(folder / name)
            found = found.get("model", {}).get("vocab") if name == TOKENIZER else found
            wanted = Tokenizer(vocab_size).hugging_face()["model"]["vocab"]
            words = [word for word, number in wanted.items() if number < vocab_size - 2]
            if not isinstance(found, dict) or any(found.get(word) != wanted[word] for word in words):
                raise DataError(
                    f"{folder}: {name} is not CLIP's tokenizer, which texts are read with here: the ids of its words "
                    f"would mean other words; take {name} away if it is not the model's"
                )
