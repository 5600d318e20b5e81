"""Checkpoints in and out: any family to a model folder, a model folder to any family's own files."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.input.tokenizer import VOCAB_SIZE, Tokenizer
from harvest_jax.model.config import HarvestConfig, Preprocessing
from harvest_jax.weights.families import viclip
from harvest_jax.weights.families.architecture import name_of
from harvest_jax.weights.families.clip import HEADER, HUGGING_FACE, OPENAI, OURS, header_config, with_activation
from harvest_jax.weights.families.clip_configs import (
    hugging_face_config,
    hugging_face_preprocessor,
    open_clip_config,
)
from harvest_jax.weights.families.known import family_of
from harvest_jax.weights.families.scenic import SCENIC
from harvest_jax.weights.families.table import Family
from harvest_jax.weights.files.flax_writer import write_msgpack
from harvest_jax.weights.files.open_checkpoint import open_checkpoint
from harvest_jax.weights.files.safetensors_writer import write_safetensors
from harvest_jax.weights.files.tensors import BFLOAT16, Tensors
from harvest_jax.weights.folder import save_tensors
from harvest_jax.weights.output import check_free, new_file, new_folder
from harvest_jax.weights.translate import as_ours, as_theirs, common_dtype, one_frame, resized, resized_config
from harvest_jax.weights.workdir_model import as_tensors, checkpoint_of, load_checkpoint

DTYPES: dict[str, np.dtype[Any] | None] = {
    "keep": None,
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": BFLOAT16,
}


@dataclasses.dataclass(frozen=True)
class Changes:
    """What an import shall differ in from its source; None leaves it as it is."""

    num_frames: int | None = None
    image_size: int | None = None
    dtype: str = "keep"
    activation: str | None = None
    resize: str | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    def preprocessing(self, found: Preprocessing) -> Preprocessing:
        """The source's preprocessing with what the user said instead.

        Raises:
          ConfigError: a mean that is no number, or a deviation that is not above zero.
        """
        if self.mean and not all(math.isfinite(number) for number in self.mean):
            raise ConfigError(f"mean={self.mean}: three numbers are wanted")
        if self.std and not all(0 < number < math.inf for number in self.std):
            raise ConfigError(f"std={self.std}: a deviation is above zero")
        return Preprocessing(self.mean or found.mean, self.std or found.std, self.resize or found.resize)


def import_checkpoint(source: Path, out: Path, changes: Changes = Changes()) -> dict[str, Any]:
    """Write the model folder `out` from a checkpoint of any known family.

    Tensor by tensor: memory holds the layers of one parameter at a time, not the model.

    Args:
      source: file or folder; a training folder is its newest good checkpoint, WORKDIR@STEP another.
      out: a folder that is not there yet, or is empty.
      changes: frames, resolution, dtype, and what the source cannot say.

    Returns:
      JSON values: `family`, `kind`, `model` (name), `parameters` (how many numbers), `dtypes`, `notes` (sentences).

    Raises:
      DataError: the source cannot be read, is of no known family, or holds other tensors than the family's.
      CheckpointError: the checkpoint of a training is missing or damaged.
      ConfigError: what was asked for is impossible, or must be said.
    """
    check_free(out)
    checkpoint = checkpoint_of(source)
    theirs = as_tensors(load_checkpoint(*checkpoint)) if checkpoint else open_checkpoint(source)
    family = family_of(theirs)
    known = header_config(theirs)  # of a file that this package exported
    found = with_activation(known, changes.activation) if known else family.architecture(theirs, changes.activation)
    if known is None and found.text.vocab_size > VOCAB_SIZE:
        raise DataError(
            f"{theirs.where}: its vocabulary has {found.text.vocab_size} entries; the tokenizer here is CLIP's, with "
            f"{VOCAB_SIZE}"
        )
    found = dataclasses.replace(found, preprocessing=changes.preprocessing(found.preprocessing))
    config = resized_config(found, changes.num_frames, changes.image_size)
    if found.name == name_of(found):
        config = dataclasses.replace(config, name=name_of(config))
    ours = as_ours(theirs, family, found)
    entries = resized(ours, found, changes.num_frames, changes.image_size)
    ours = with_dtype(entries, changes.dtype)
    origin: dict[str, Any] = {"imported_from": source.name, "family": family.name, "kind": theirs.kind}
    if checkpoint:
        origin["training"] = theirs.details["origin"]
    notes = []
    if found.video.num_frames != config.video.num_frames:
        origin["frames"] = f"{found.video.num_frames} resized to {config.video.num_frames}"
    if found.video.image_size != config.video.image_size:
        origin["image_size"] = f"{found.video.image_size} resized to {config.video.image_size}"
    if known is None and family is not OURS and found.text.vocab_size < VOCAB_SIZE:
        notes.append(
            f"its vocabulary has {found.text.vocab_size} entries: taken for the first ones of CLIP's own, which is "
            "right for models of this package alone"
        )
    save_tensors(out, config, ours.entries, ours.read, origin)
    return {
        "family": family.name,
        "kind": theirs.kind,
        "model": config.name,
        "parameters": count(ours),
        "dtypes": dtypes(ours),
        "notes": notes,
    }


def with_dtype(tensors: Tensors, dtype: str) -> Tensors:
    """The same to be stored in another type; single numbers (the logarithm of the scale) become float32 or stay so."""
    wanted = DTYPES[dtype]
    if wanted is None:
        return tensors
    entries = {
        name: dataclasses.replace(entry, dtype=wanted if entry.shape else np.dtype(np.float32))
        for name, entry in tensors.entries.items()
    }
    return dataclasses.replace(tensors, entries=entries)


def open_model(folder: Path) -> tuple[HarvestConfig, Tensors]:
    """A model folder's description and its parameters, one at a time.

    Raises:
      DataError: it is none, or its parameters are not those of its description.
    """
    tensors = open_checkpoint(folder)
    if not OURS.recognise(tensors):
        raise DataError(f"{folder} is not a model folder of this package: make one of it with harvest weights import")
    config = OURS.architecture(tensors, None)
    return config, as_ours(tensors, OURS, config)


def count(tensors: Tensors) -> int:
    """Numbers in all tensors together."""
    return sum(int(np.prod(entry.shape, dtype=np.int64)) for entry in tensors.entries.values())


def dtypes(tensors: Tensors) -> list[str]:
    """Names of the types in which they are stored."""
    return sorted({str(entry.dtype) for entry in tensors.entries.values()})


# Out


def export_model(folder: Path, form: str, out: Path) -> dict[str, Any]:
    """Write a model folder in another program's form (one of FORMATS); the file or folder appears whole or not at all.

    Returns:
      JSON values: `form`, `out`, `parameters` (how many numbers went out), `left_out` (parts that the form has no
      place for), `notes` (sentences).

    Raises:
      ConfigError: no such form, or `out` has another ending than its files.
      DataError: the folder cannot be used, or `out` is there already.
    """
    if form not in FORMATS:
        raise ConfigError(f"no format {form!r}: {', '.join(FORMATS)}")
    ending = ENDINGS.get(form)
    if ending and out.suffix != ending:
        raise ConfigError(f"--format {form} writes one file: give --out a name that ends in {ending}, not {out.name}")
    check_free(out)
    return {"form": form, "out": str(out)} | FORMATS[form](folder, out)


def _write_hugging_face(folder: Path, out: Path) -> dict[str, Any]:
    config, ours = open_model(folder)
    theirs, summary = _image_model(ours, HUGGING_FACE, config)
    stored = common_dtype(entry.dtype for entry in theirs.entries.values())
    with new_folder(out) as aside:
        write_safetensors(aside / "model.safetensors", theirs.entries, theirs.read, {"format": "pt"})
        _write_json(aside / "config.json", hugging_face_config(config, str(stored)))
        _write_json(aside / "preprocessor_config.json", hugging_face_preprocessor(config))
        _write_tokenizer(aside, config)
    return summary


def _write_tokenizer(folder: Path, config: HarvestConfig) -> None:
    """For transformers' `CLIPTokenizer`: our vocabulary and merges are CLIP's."""
    Tokenizer(config.text.vocab_size).save_vocabulary(folder)
    end, start = "<|endoftext|>", "<|startoftext|>"
    special = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end}
    _write_json(folder / "special_tokens_map.json", special)
    length = config.text.context_length
    _write_json(
        folder / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer", "model_max_length": length} | special
    )


def _write_open_clip(folder: Path, out: Path) -> dict[str, Any]:
    config, ours = open_model(folder)
    if config.video.activation != config.text.activation:
        raise DataError(
            f"{folder}: its towers have different activations ({config.video.activation}, {config.text.activation}); "
            "OpenCLIP's config has one for both"
        )
    theirs, summary = _image_model(ours, OPENAI, config)
    with new_folder(out) as aside:
        write_safetensors(aside / "open_clip_model.safetensors", theirs.entries, theirs.read, {"format": "pt"})
        _write_json(aside / "open_clip_config.json", open_clip_config(config))
    return summary


def _image_model(ours: Tensors, family: Family, config: HarvestConfig) -> tuple[Tensors, dict[str, Any]]:
    """An image family's tensors of a model, with the table of frames folded into that of places."""
    theirs = as_theirs(one_frame(ours), family, config)
    summary = _summary(ours, theirs, family, config)
    if config.video.num_frames > 1:
        summary["notes"].append(
            f"the image tower is the video tower at one frame: the table of {config.video.num_frames} frames, resized "
            "to one, is part of the table of places"
        )
    return theirs, summary


def _summary(ours: Tensors, theirs: Tensors, family: Family, config: HarvestConfig) -> dict[str, Any]:
    kept = {row.our for row in family.rows(config)} | set(family.zeros)
    left_out = sorted({name.split("/")[0] for name in ours.entries if name not in kept})
    return {"parameters": count(theirs), "dtypes": dtypes(theirs), "left_out": left_out, "notes": []}


def _write_viclip(folder: Path, out: Path) -> dict[str, Any]:
    config, ours = open_model(folder)
    _refuse_gelu(folder, config, "ViCLIP")
    theirs = as_theirs(ours, viclip.VICLIP, config)
    # its names say neither the heads nor how pictures are prepared: for the way back
    header = {"format": "pt", HEADER: json.dumps(dataclasses.replace(config, decoder=None).to_dict())}
    with new_file(out) as aside:
        write_safetensors(aside, theirs.entries, theirs.read, header)
    summary = _summary(ours, theirs, viclip.VICLIP, config)
    if (config.video.width, config.text.width) != (64 * config.video.heads, 64 * config.text.heads):
        summary["notes"].append(
            f"InternVideo's models have width / 64 heads; build its towers with {config.video.heads} and "
            f"{config.text.heads} heads for this one"
        )
    sizes = config.text.context_length, config.video.num_frames
    if sizes != viclip.SIZES:
        summary["notes"].append(
            f"InternVideo's ViCLIP has tables of {viclip.SIZES[0]} tokens and {viclip.SIZES[1]} frames; build it with "
            f"max_txt_l={sizes[0]} and video_input_num_frames={sizes[1]} for this one"
        )
    summary["notes"] += _preprocessing_note(config, viclip.PREPROCESSING, "InternVideo's code")
    return summary


def _write_scenic(folder: Path, out: Path) -> dict[str, Any]:
    config, ours = open_model(folder)
    _refuse_gelu(folder, config, "Scenic's CLIP")
    theirs, summary = _image_model(ours, SCENIC, config)
    with new_file(out) as aside:
        # "params/" as in the variables of a Linen model
        write_msgpack(aside, theirs.renamed({name: f"params/{name}" for name in theirs.entries}))
    summary["notes"] += _preprocessing_note(config, Preprocessing(), "Scenic's code")
    return summary


def _preprocessing_note(config: HarvestConfig, theirs: Preprocessing, whose: str) -> list[str]:
    """A sentence where a format that does not say how pictures are prepared meets a model prepared otherwise."""
    ours = config.preprocessing
    if ours == theirs:
        return []
    return [
        f"{whose} prepares pictures otherwise (resize {theirs.resize}, mean {theirs.mean}, std {theirs.std}); this "
        f"model wants resize {ours.resize}, mean {ours.mean}, std {ours.std}"
    ]


def _refuse_gelu(folder: Path, config: HarvestConfig, whose: str) -> None:
    if {config.video.activation, config.text.activation} != {"quick_gelu"}:
        raise DataError(f"{folder} has the activation gelu; the code of {whose} has quick_gelu and no field to say so")


def _write_safetensors(folder: Path, out: Path) -> dict[str, Any]:
    config, ours = open_model(folder)
    header = {"format": "harvest_jax", HEADER: json.dumps(config.to_dict())}
    with new_file(out) as aside:
        write_safetensors(aside, ours.entries, ours.read, header)
    return _summary(ours, ours, OURS, config)


def _write_stablehlo(folder: Path, out: Path) -> dict[str, Any]:
    from harvest_jax.weights.stablehlo import export_stablehlo, stored

    if not folder.is_dir():
        raise DataError(
            f"{folder} is a file; programs are written from a model folder: `harvest weights import` makes one"
        )
    export_stablehlo(folder, out)
    _, ours = open_model(folder)
    towers = {name: stored(entry) for name, entry in ours.entries.items() if name.startswith(("video/", "text/"))}
    left_out = sorted({name.split("/")[0] for name in ours.entries.keys() - towers.keys()} - {"logit_scale"})
    out_going = dataclasses.replace(ours, entries=towers)
    notes = ["signature.json has the logit_scale"]
    return {"parameters": count(out_going), "dtypes": dtypes(out_going), "left_out": left_out, "notes": notes}


FORMATS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "hf": _write_hugging_face,
    "open_clip": _write_open_clip,
    "viclip": _write_viclip,
    "scenic": _write_scenic,
    "safetensors": _write_safetensors,
    "stablehlo": _write_stablehlo,
}
ENDINGS = {"viclip": ".safetensors", "safetensors": ".safetensors", "scenic": ".msgpack"}  # the others are folders


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
