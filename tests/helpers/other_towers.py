"""Folders of small models whose towers are no CLIP's: SigLIP's with its own tokenizer, EVA-02-CLIP's, PE-Core's."""

import dataclasses
from pathlib import Path

import numpy as np

from harvest_jax.input.file_tokenizer import FileTokenizer
from harvest_jax.model.harvest import parameter_shapes
from harvest_jax.weights.files.tensors import TensorSpec
from harvest_jax.weights.folder import save_tensors
from tests.helpers.checkpoint_tensors import EVA, PE, SIGLIP
from tests.helpers.tokenizer_files import write_sentencepiece

TOWERS = {"SigLIP": SIGLIP, "EVA-02": EVA, "PE-Core": PE}


def save_other_model(folder: Path, kind: str, num_frames: int = 2) -> Path:
    """Write the folder of a video model of random numbers, with one layer in each tower."""
    config = TOWERS[kind]
    embed_dim = 32 if kind == "SigLIP" else 12  # without a projection it is the width
    small = {"layers": 1, "embed_dim": embed_dim}
    video = dataclasses.replace(config.video, num_frames=num_frames, width=32, mlp_width=40, **small)
    text = dataclasses.replace(config.text, width=16, **small)
    tokenizer = None
    if kind == "SigLIP":
        folder.parent.mkdir(parents=True, exist_ok=True)
        tokenizer = FileTokenizer(write_sentencepiece(folder.parent / "tokenizer.json"), "", text.vocab_size)
        text = dataclasses.replace(text, tokenizer=tokenizer.digest)
    config = dataclasses.replace(config, video=video, text=text)
    rng = np.random.default_rng(0)
    arrays = {name: np.asarray(rng.normal(0, 0.3, s), np.float32) for name, s in parameter_shapes(config).items()}
    entries = {name: TensorSpec(array.shape, array.dtype) for name, array in arrays.items()}
    save_tensors(folder, config, entries, arrays.__getitem__, {}, tokenizer)
    return folder
