"""`harvest weights export`: a model folder in another program's format."""

import dataclasses
import functools
import json
import os
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.files import scratch_folder, sync, write_atomically
from harvest_jax.model.config import HarvestConfig, Preprocessing
from harvest_jax.weights.families import viclip
from harvest_jax.weights.families.family import Family
from harvest_jax.weights.families.hf_video import HF_VIDEO, hf_video_files
from harvest_jax.weights.families.hugging_face import HUGGING_FACE
from harvest_jax.weights.families.hugging_face_config import hugging_face_config, hugging_face_preprocessor
from harvest_jax.weights.families.native import HEADER, NATIVE
from harvest_jax.weights.families.open_clip_config import open_clip_config
from harvest_jax.weights.families.openai import OPENAI
from harvest_jax.weights.families.scenic import SCENIC
from harvest_jax.weights.files.flax_writer import write_msgpack
from harvest_jax.weights.files.safetensors_writer import write_safetensors
from harvest_jax.weights.files.tensors import Tensors, TensorSpec
from harvest_jax.weights.folder import open_model
from harvest_jax.weights.new_output import check_free, described_errors, new_file, new_folder
from harvest_jax.weights.tokenizer_files import write_tokenizer
from harvest_jax.weights.translate import FRAMES, common_dtype, one_frame, to_family


def export_model(
    folder: Path,
    file_format: str,
    out: Path,
    *,
    drop_time: bool = False,
    batch: int | None = None,
    int8: bool = False,
    card: str | None = None,
) -> dict[str, Any]:
    """Write a model folder in another program's format; the file or folder appears whole or not at all.

    Args:
      folder: a model folder.
      file_format: one of FORMATS.
      out: a file or folder that does not exist yet.
      drop_time: write an image format (IMAGE_FORMATS) although the model's sense of time is lost in it.
      batch: of stablehlo: the fixed number of rows of its programs; None: any number.
      int8: of onnx: matrices are stored as int8.
      card: text of a README.md, for formats that are folders.

    Returns:
      JSON values: `format`, `out`, `parameters` (numbers written), `dtypes`, `left_out` (parts of the model that the
      format has no place for), `notes` (sentences).

    Raises:
      ConfigError: no such format, `out` has the wrong ending, or an option is impossible or of another format.
      DataError: the model folder cannot be used, time would be lost, or `out` exists already or cannot be written.
    """
    if file_format not in FORMATS:
        raise ConfigError(f"unknown format {file_format!r}; known are {', '.join(FORMATS)}")
    ending = ENDINGS.get(file_format)
    if ending and out.suffix != ending:
        raise ConfigError(
            f"--format {file_format} writes one file: give --out a name that ends in {ending}, not {out.name}"
        )
    if drop_time and file_format not in IMAGE_FORMATS:
        raise ConfigError(f"--drop_time is for {', '.join(IMAGE_FORMATS)}: the format {file_format} keeps time")
    check_free(out)
    write = FORMATS[file_format]
    if drop_time:
        write = functools.partial(write, drop_time=True)
    if batch is not None:
        if file_format != "stablehlo":
            raise ConfigError(f"--batch is for --format stablehlo: {file_format} takes any number of rows")
        write = functools.partial(_write_stablehlo, batch=batch)
    if int8:
        if file_format != "onnx":
            raise ConfigError(f"--int8 is for --format onnx, not for {file_format}")
        write = functools.partial(_write_onnx, int8=True)
    done = write(folder, out) if card is None or ending else _with_card(write, folder, out, card)
    return {"format": file_format, "out": str(out)} | done


def _with_card(write: Callable[[Path, Path], dict[str, Any]], folder: Path, out: Path, card: str) -> dict[str, Any]:
    """What `write` writes, with a README.md in it before it is moved to its place."""
    with described_errors(out), scratch_folder(out) as scratch:
        done = write(folder, scratch / "folder")
        write_atomically(scratch / "folder" / CARD, card.encode())
        target = Path(os.path.realpath(out))
        os.replace(scratch / "folder", target)
        sync(target.parent)
    return done


def _refuse_time(folder: Path, ours: Tensors, config: HarvestConfig, file_format: str) -> None:
    """Refuse a model with a table of frames, of which an image model is not the same."""
    if config.video.num_frames > 1 and ours.read(FRAMES).any():
        raise DataError(
            f"{folder} has learnt what happens over {config.video.num_frames} frames, and the format {file_format} is "
            "an image model, which would lose it: export with --format hf_video (or viclip), or give --drop_time for "
            "the image model that it is at one frame"
        )


def _write_hugging_face(folder: Path, out: Path, drop_time: bool = False) -> dict[str, Any]:
    config, theirs, summary = _image_model(folder, HUGGING_FACE, "hf", drop_time)
    stored = common_dtype(entry.dtype for entry in theirs.entries.values())
    with new_folder(out) as aside:
        write_safetensors(aside / "model.safetensors", theirs.entries, theirs.read, {"format": "pt"})
        _write_json(aside / "config.json", hugging_face_config(config, str(stored)))
        _write_json(aside / "preprocessor_config.json", hugging_face_preprocessor(config))
        write_tokenizer(aside, config)
    return summary


def _write_hf_video(folder: Path, out: Path) -> dict[str, Any]:
    config, ours = open_model(folder)
    _refuse_unlike_clip(config, "hf_video")
    theirs = to_family(ours, HF_VIDEO, config)
    stored = common_dtype(entry.dtype for entry in theirs.entries.values())
    with new_folder(out) as aside:
        write_safetensors(aside / "model.safetensors", theirs.entries, theirs.read, {"format": "pt"})
        for name, values in hf_video_files(config, str(stored)).items():
            _write_json(aside / name, values)
        for name in HF_VIDEO_CODE:
            code = resources.files("harvest_jax.weights.hf_video").joinpath(name)
            (aside / name).write_text(code.read_text(encoding="utf-8"), encoding="utf-8")
    return _summary(ours, theirs, HF_VIDEO, config)


def _write_open_clip(folder: Path, out: Path, drop_time: bool = False) -> dict[str, Any]:
    config, theirs, summary = _image_model(folder, OPENAI, "open_clip", drop_time)
    if config.video.activation != config.text.activation:
        raise DataError(
            f"{folder}: its towers have different activations ({config.video.activation}, {config.text.activation}); "
            "OpenCLIP's config has one for both"
        )
    if config.video.activation == "gelu_tanh":
        raise DataError(f"{folder} has the activation gelu_tanh; OpenCLIP's config has no name for it")
    with new_folder(out) as aside:
        write_safetensors(aside / "open_clip_model.safetensors", theirs.entries, theirs.read, {"format": "pt"})
        _write_json(aside / "open_clip_config.json", open_clip_config(config))
    return summary


def _image_model(
    folder: Path, family: Family, file_format: str, drop_time: bool
) -> tuple[HarvestConfig, Tensors, dict[str, Any]]:
    """A model's config and tensors as an image family's; the table of frames is added to that of patch positions.

    Raises:
      DataError: time would be lost and may not be, or the towers are no CLIP's.
    """
    config, ours = open_model(folder)
    if not drop_time:
        _refuse_time(folder, ours, config, file_format)
    _refuse_unlike_clip(config, family.name)
    theirs = to_family(one_frame(ours), family, config)
    summary = _summary(ours, theirs, family, config)
    if config.video.num_frames > 1:
        summary["notes"].append(
            f"the image tower is the video tower at one frame: the table of {config.video.num_frames} frames, resized "
            "to one, was added to the table of patch positions"
        )
    return config, theirs, summary


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


def _write_scenic(folder: Path, out: Path, drop_time: bool = False) -> dict[str, Any]:
    config, theirs, summary = _image_model(folder, SCENIC, "scenic", drop_time)
    _refuse_gelu(folder, config, "Scenic's CLIP")
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


def _write_stablehlo(folder: Path, out: Path, batch: int | None = None) -> dict[str, Any]:
    from harvest_jax.weights.stablehlo import export_stablehlo, stored

    return _towers(export_stablehlo(folder, out, batch), stored)


def _write_onnx(folder: Path, out: Path, int8: bool = False) -> dict[str, Any]:
    try:
        from harvest_jax.weights.onnx_export import export_onnx
    except ImportError as error:
        raise ConfigError(f"--format onnx needs the onnx package ({error}): pip install 'harvest_jax[onnx]'") from error
    float32 = np.dtype(np.float32)
    done = _towers(export_onnx(folder, out, int8), lambda entry: dataclasses.replace(entry, dtype=float32))
    return done | ({"dtypes": ["float32", "int8"]} if int8 else {})


def _towers(ours: Tensors, stored: Callable[[TensorSpec], TensorSpec]) -> dict[str, Any]:
    """The summary of a format that has both towers, and the scale and its bias in its signature."""
    towers = {name: stored(entry) for name, entry in ours.entries.items() if name.startswith(("video/", "text/"))}
    signed = [name for name in ("logit_scale", "logit_bias") if name in ours.entries]
    left_out = sorted({name.split("/")[0] for name in ours.entries.keys() - towers.keys()} - {*signed})
    written = dataclasses.replace(ours, entries=towers)
    notes = [f"{' and '.join(signed)}: in signature.json"]
    return {"parameters": written.parameters, "dtypes": written.dtypes, "left_out": left_out, "notes": notes}


HF_VIDEO_CODE = ("modeling_harvest.py", "processing_harvest.py", "sentence_transformers_harvest.py")
FORMATS: dict[str, Callable[..., dict[str, Any]]] = {  # of a folder and an output, and the options of the format
    "hf": _write_hugging_face,
    "hf_video": _write_hf_video,
    "open_clip": _write_open_clip,
    "viclip": _write_viclip,
    "scenic": _write_scenic,
    "safetensors": _write_safetensors,
    "stablehlo": _write_stablehlo,
    "onnx": _write_onnx,
}
CARD = "README.md"
IMAGE_FORMATS = ("hf", "open_clip", "scenic")  # which have no place for a table of frames
ENDINGS = {"viclip": ".safetensors", "safetensors": ".safetensors", "scenic": ".msgpack"}  # the others are folders


def _write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
