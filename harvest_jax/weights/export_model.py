"""`harvest weights export`: a model folder in another program's format."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.input.tokenizer import Tokenizer
from harvest_jax.model.config import HarvestConfig, Preprocessing
from harvest_jax.weights.families import viclip
from harvest_jax.weights.families.family import Family
from harvest_jax.weights.families.hugging_face import HUGGING_FACE
from harvest_jax.weights.families.hugging_face_config import hugging_face_config, hugging_face_preprocessor
from harvest_jax.weights.families.native import HEADER, NATIVE
from harvest_jax.weights.families.open_clip_config import open_clip_config
from harvest_jax.weights.families.openai import OPENAI
from harvest_jax.weights.families.scenic import SCENIC
from harvest_jax.weights.files.flax_writer import write_msgpack
from harvest_jax.weights.files.safetensors_writer import write_safetensors
from harvest_jax.weights.files.tensors import Tensors
from harvest_jax.weights.folder import open_model
from harvest_jax.weights.new_output import check_free, new_file, new_folder
from harvest_jax.weights.translate import common_dtype, one_frame, to_family


def export_model(folder: Path, file_format: str, out: Path) -> dict[str, Any]:
    """Write a model folder in another program's format; the file or folder appears whole or not at all.

    Args:
      folder: a model folder.
      file_format: one of FORMATS.
      out: a file or folder that does not exist yet.

    Returns:
      JSON values: `format`, `out`, `parameters` (numbers written), `dtypes`, `left_out` (parts of the model that the
      format has no place for), `notes` (sentences).

    Raises:
      ConfigError: no such format, or `out` has the wrong ending.
      DataError: the model folder cannot be used, or `out` exists already or cannot be written.
    """
    if file_format not in FORMATS:
        raise ConfigError(f"unknown format {file_format!r}; known are {', '.join(FORMATS)}")
    ending = ENDINGS.get(file_format)
    if ending and out.suffix != ending:
        raise ConfigError(
            f"--format {file_format} writes one file: give --out a name that ends in {ending}, not {out.name}"
        )
    check_free(out)
    return {"format": file_format, "out": str(out)} | FORMATS[file_format](folder, out)


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
    """The files of transformers' `CLIPTokenizer`; the vocabulary and merges here are CLIP's."""
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
    """An image family's tensors of a model; the table of frames is added to that of patch positions."""
    _refuse_unlike_clip(config, family.name)
    theirs = to_family(one_frame(ours), family, config)
    summary = _summary(ours, theirs, family, config)
    if config.video.num_frames > 1:
        summary["notes"].append(
            f"the image tower is the video tower at one frame: the table of {config.video.num_frames} frames, resized "
            "to one, was added to the table of patch positions"
        )
    return theirs, summary


def _summary(ours: Tensors, theirs: Tensors, family: Family, config: HarvestConfig) -> dict[str, Any]:
    kept = {mapping.our for mapping in family.mappings(config)} | set(family.zeros)
    left_out = sorted({name.split("/")[0] for name in ours.entries if name not in kept})
    return {"parameters": theirs.parameters, "dtypes": theirs.dtypes, "left_out": left_out, "notes": []}


def _write_viclip(folder: Path, out: Path) -> dict[str, Any]:
    config, ours = open_model(folder)
    _refuse_unlike_clip(config, "ViCLIP")
    _refuse_gelu(folder, config, "ViCLIP")
    theirs = to_family(ours, viclip.VICLIP, config)
    # for a later import: the names say neither the heads nor how pictures are prepared
    header = {"format": "pt", HEADER: json.dumps(dataclasses.replace(config, decoder=None, head=None).to_dict())}
    with new_file(out) as aside:
        write_safetensors(aside, theirs.entries, theirs.read, header)
    summary = _summary(ours, theirs, viclip.VICLIP, config)
    if (config.video.width, config.text.width) != (64 * config.video.heads, 64 * config.text.heads):
        summary["notes"].append(
            f"InternVideo's models have width / 64 heads; build its towers with {config.video.heads} and "
            f"{config.text.heads} heads for this model"
        )
    tokens, frames = config.text.context_length, config.video.num_frames
    if (tokens, frames) != (viclip.CONTEXT_LENGTH, viclip.NUM_FRAMES):
        summary["notes"].append(
            f"InternVideo's ViCLIP has {viclip.CONTEXT_LENGTH} tokens and {viclip.NUM_FRAMES} frames; build it with "
            f"max_txt_l={tokens} and video_input_num_frames={frames} for this model"
        )
    summary["notes"] += _preprocessing_note(config, viclip.PREPROCESSING, "InternVideo's code")
    return summary


def _write_scenic(folder: Path, out: Path) -> dict[str, Any]:
    config, ours = open_model(folder)
    _refuse_unlike_clip(config, "Scenic's CLIP")
    _refuse_gelu(folder, config, "Scenic's CLIP")
    theirs, summary = _image_model(ours, SCENIC, config)
    with new_file(out) as aside:
        # "params/" as in the variables of a Linen model
        write_msgpack(aside, theirs.renamed({name: f"params/{name}" for name in theirs.entries}))
    summary["notes"] += _preprocessing_note(config, Preprocessing(), "Scenic's code")
    return summary


def _preprocessing_note(config: HarvestConfig, theirs: Preprocessing, whose: str) -> list[str]:
    """A sentence if the format does not say how pictures are prepared and its programs do it differently."""
    ours = config.preprocessing
    if ours == theirs:
        return []
    return [
        f"{whose} prepares pictures differently (resize {theirs.resize}, mean {theirs.mean}, std {theirs.std}); this "
        f"model needs resize {ours.resize}, mean {ours.mean}, std {ours.std}"
    ]


def _refuse_unlike_clip(config: HarvestConfig, format_name: str) -> None:
    """Raise DataError if the format has no place for what the towers are."""
    if config.unlike_clip:
        raise DataError(
            f"{config.name} cannot be written as {format_name}, because its towers are no CLIP's "
            f"({', '.join(config.unlike_clip[:4])}); safetensors and stablehlo hold every model"
        )


def _refuse_gelu(folder: Path, config: HarvestConfig, whose: str) -> None:
    if {config.video.activation, config.text.activation} != {"quick_gelu"}:
        raise DataError(f"{folder} has the activation gelu; the code of {whose} always uses quick_gelu")


def _write_safetensors(folder: Path, out: Path) -> dict[str, Any]:
    config, ours = open_model(folder)
    header = {"format": "harvest_jax", HEADER: json.dumps(config.to_dict())}
    with new_file(out) as aside:
        write_safetensors(aside, ours.entries, ours.read, header)
    summary = _summary(ours, ours, NATIVE, config)
    if config.text.tokenizer:
        summary["notes"].append(f"the model's tokenizer is not in the file: keep {folder}/tokenizer.json with it")
    return summary


def _write_stablehlo(folder: Path, out: Path) -> dict[str, Any]:
    from harvest_jax.weights.stablehlo import export_stablehlo, stored

    export_stablehlo(folder, out)
    _, ours = open_model(folder)
    towers = {name: stored(entry) for name, entry in ours.entries.items() if name.startswith(("video/", "text/"))}
    left_out = sorted({name.split("/")[0] for name in ours.entries.keys() - towers.keys()} - {"logit_scale"})
    written = dataclasses.replace(ours, entries=towers)
    notes = ["the logit_scale is in signature.json"]
    return {"parameters": written.parameters, "dtypes": written.dtypes, "left_out": left_out, "notes": notes}


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
