"""`harvest weights import`: a checkpoint of any known family becomes a model folder."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.input.file_tokenizer import FileTokenizer
from harvest_jax.input.tokenizer import VOCAB_SIZE
from harvest_jax.model.config import HarvestConfig
from harvest_jax.weights.families.architecture import name_of
from harvest_jax.weights.families.family import Family, Overrides
from harvest_jax.weights.families.hf_video import HF_VIDEO
from harvest_jax.weights.families.native import NATIVE, header_config
from harvest_jax.weights.families.recognise import recognised
from harvest_jax.weights.files.open_checkpoint import TOKENIZER, open_checkpoint
from harvest_jax.weights.files.tensors import BFLOAT16, Tensors
from harvest_jax.weights.folder import save_tensors
from harvest_jax.weights.mistaken_path import check_may_be_checkpoint
from harvest_jax.weights.new_output import check_free
from harvest_jax.weights.tokenizer_files import check_clip_tokenizer
from harvest_jax.weights.translate import resized, resized_config, to_native
from harvest_jax.weights.workdir_model import as_tensors, checkpoint_of, load_checkpoint

DTYPES: dict[str, np.dtype[Any] | None] = {
    "keep": None,
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": BFLOAT16,
}


def import_checkpoint(
    source: Path,
    out: Path,
    overrides: Overrides = Overrides(),  # noqa: B008 (frozen)
    *,
    num_frames: int | None = None,
    image_size: int | None = None,
    dtype: str = "keep",
    hub: dict[str, Any] | None = None,
    tokenizer: Path | None = None,
) -> dict[str, Any]:
    """Write the model folder `out` from a checkpoint of any known family.

    Memory holds the layers of one parameter at a time, not the model.

    Args:
      source: file or folder; a training folder is its newest good checkpoint, WORKDIR@STEP another.
      out: a folder that does not exist yet, or is empty.
      overrides: what the user says of the checkpoint.
      num_frames: frames of a clip; the table of frames is resized. None: the checkpoint's.
      image_size: pixels of a side; the table of patch positions is resized. None: the checkpoint's.
      dtype: in which the numbers are stored, one of DTYPES; "keep": the checkpoint's.
      hub: where the source was downloaded from: its repository, commit and licence, which config.json then says.
      tokenizer: the `tokenizer.json` of a model whose tokenizer is not CLIP's. None: the file in the source's folder.

    Returns:
      JSON values: `family`, `kind`, `model` (name), `parameters` (numbers), `dtypes`, `notes` (sentences).

    Raises:
      DataError: the source cannot be read, has an unknown family, or holds other tensors than the family's.
      CheckpointError: the checkpoint of a training is missing or damaged.
      ConfigError: an argument is impossible, or the user must say what the checkpoint does not.
    """
    check_free(out)
    checkpoint = checkpoint_of(source)
    if checkpoint is None:
        check_may_be_checkpoint(source)
    loaded = load_checkpoint(*checkpoint) if checkpoint else None
    family, theirs = recognised(as_tensors(loaded) if loaded else open_checkpoint(source))
    exported = header_config(theirs, overrides)  # of a file that this package exported
    found = exported or family.architecture(theirs, overrides)
    words: FileTokenizer | None = None
    if family.own_tokenizer or found.text.tokenizer:
        words = loaded.tokenizer if loaded else _own_tokenizer(found, tokenizer, theirs.where)
        if words is not None:
            found = dataclasses.replace(found, text=dataclasses.replace(found.text, tokenizer=words.digest))
    elif tokenizer is not None:
        raise ConfigError(f"--tokenizer {tokenizer}: {theirs.where} is read with CLIP's tokenizer, which is built in")
    notes = [] if exported else [*family.notes(theirs, overrides), *_vocabulary_notes(theirs.where, family, found)]
    notes += theirs.details.get("notes", [])
    if words is None and family not in (NATIVE, HF_VIDEO) and Path(theirs.where).is_dir():
        check_clip_tokenizer(Path(theirs.where), found.text.vocab_size)
    config = resized_config(found, num_frames, image_size)
    if found.name == name_of(found):
        config = dataclasses.replace(config, name=name_of(config))
    ours = with_dtype(resized(to_native(theirs, family, found), found, num_frames, image_size), dtype)
    origin: dict[str, Any] = {"imported_from": source.name, "family": family.name, "kind": theirs.kind}
    if hub:
        origin |= {"imported_from": f"hf://{hub['repo']}@{hub['commit']}", "hub": hub}
    if checkpoint:
        origin["training"] = theirs.details["origin"]
    elif family is NATIVE and isinstance(before := theirs.details.get("config", {}).get("origin"), dict):
        origin["origin"] = before  # what the folder said of itself
    for name in ("num_frames", "image_size"):
        before, after = getattr(found.video, name), getattr(config.video, name)
        if before != after:
            origin[name.removeprefix("num_")] = f"{before} resized to {after}"
    save_tensors(out, config, ours.entries, ours.read, origin, words)
    return {
        "family": family.name,
        "kind": theirs.kind,
        "model": config.name,
        "parameters": ours.parameters,
        "dtypes": ours.dtypes,
        "notes": notes,
    }


def with_dtype(tensors: Tensors, dtype: str) -> Tensors:
    """The same tensors, to be stored in another dtype (one of DTYPES); single numbers are stored in float32."""
    wanted = DTYPES[dtype]
    if wanted is None:
        return tensors
    entries = {
        name: dataclasses.replace(entry, dtype=wanted if entry.shape else np.dtype(np.float32))
        for name, entry in tensors.entries.items()
    }
    return dataclasses.replace(tensors, entries=entries)


def _own_tokenizer(config: HarvestConfig, given: Path | None, where: str) -> FileTokenizer:
    """The tokenizer that belongs to a checkpoint: the file that was given, or the one in its folder.

    Raises:
      ConfigError: there is none.
      DataError: it cannot be read, or is another model's.
    """
    folder = Path(where) if Path(where).is_dir() else Path(where).parent
    path = given or folder / TOKENIZER
    if not path.is_file():
        raise ConfigError(
            f"{where} is not read with CLIP's tokenizer: give --tokenizer FILE, the {TOKENIZER} of the same model in "
            f"transformers' form ({path} does not exist; a sentencepiece model, spiece.model, is not read)"
        )
    return FileTokenizer(path, config.text.tokenizer, config.text.vocab_size)


# Vocabularies of published models whose text tower is otherwise a CLIP's, by their size.
_VOCABULARIES = {
    901_629: "XLM-V's, of MetaCLIP 2 (worldwide)",
    250_002: "XLM-RoBERTa's",
    21_128: "BERT's Chinese one, of Chinese-CLIP",
    30_522: "BERT's",
}


def _vocabulary_notes(where: str, family: Family, config: HarvestConfig) -> list[str]:
    """What to say of a vocabulary that is not the tokenizer's; DataError if the tokenizer cannot serve it."""
    size = config.text.vocab_size
    if config.text.tokenizer:
        return []
    if size > VOCAB_SIZE or size in _VOCABULARIES:
        whose = f" ({_VOCABULARIES[size]})" if size in _VOCABULARIES else ""
        raise DataError(
            f"{where} has a vocabulary of {size} entries{whose}; the tokenizer here is CLIP's, with {VOCAB_SIZE}"
        )
    if size == VOCAB_SIZE or family is NATIVE:
        return []
    return [
        f"the vocabulary has {size} entries: they are assumed to be the first of CLIP's {VOCAB_SIZE}, which is right "
        "only for models of this package"
    ]
