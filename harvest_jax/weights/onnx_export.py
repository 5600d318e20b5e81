"""A model as two ONNX files, `encode_video.onnx` and `encode_text.onnx`, for onnxruntime and what else reads ONNX.

`signature.json` says how to call them, as for the StableHLO programs, and the tokenizer's files lie beside it. How to
run them without this package: docs/onnx.md.
"""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
from flax import traverse_util
from jax import export

from harvest_jax.errors import DataError
from harvest_jax.input.file_tokenizer import TextTokenizer
from harvest_jax.model.config import HarvestConfig
from harvest_jax.model.harvest import Harvest
from harvest_jax.model.inference import text_embedding, video_embedding
from harvest_jax.terminal import one_line
from harvest_jax.version import __version__
from harvest_jax.weights.files.safetensors_writer import all_finite
from harvest_jax.weights.files.tensors import Tensors
from harvest_jax.weights.folder import load_tokenizer, open_parameters
from harvest_jax.weights.new_output import new_folder
from harvest_jax.weights.onnx_graph import IR_VERSION, OPSET, onnx_model
from harvest_jax.weights.stablehlo import SIGNATURE, facts, json_array
from harvest_jax.weights.tokenizer_files import write_tokenizer

FORMAT = "harvest_jax onnx 1"
ONE_FILE = 1 << 30  # bytes of weights up to which a model is one file; protobuf's limit is 2 GiB


def export_onnx(folder: Path, out: Path, int8: bool = False) -> Tensors:
    """Write both towers of a model folder; the output folder appears whole or not at all.

    encode_video takes uint8 RGB [batch, T, S, S, 3], frames that are squares of the model's size, not normalised; T is
    1 for an image model. encode_text takes int32 ids [batch, L] of the whole context. Both give float32 [batch, D],
    L2-normalised, equal to those of `harvest_jax.load(folder)` to 1e-5. The decoder of masked words is left out.

    Args:
      folder: a model folder.
      out: a folder that does not exist yet, or is empty.
      int8: matrices are stored as int8, with a scale for each column, and turned back into float32 by the graph.

    Returns:
      the parameters of the model folder.

    Raises:
      DataError: the model folder cannot be used or translated, or `out` exists already or cannot be written.
    """
    config, tensors = open_parameters(folder)
    with new_folder(out) as aside:
        signature = _write(aside, config, tensors, load_tokenizer(config, folder), int8)
        (aside / SIGNATURE).write_text(json.dumps(signature, indent=2) + "\n", encoding="utf-8")
        if not config.text.tokenizer:  # a model's own is there already
            write_tokenizer(aside, config)
    return tensors


def _write(
    aside: Path, config: HarvestConfig, tensors: Tensors, tokenizer: TextTokenizer, int8: bool
) -> dict[str, Any]:
    """Write the two files; gives the content of signature.json."""
    video, text, harvest = config.video, config.text, Harvest(config)
    size = f"b, {video.num_frames}, {video.image_size}, {video.image_size}, 3"
    clips = jax.ShapeDtypeStruct(export.symbolic_shape(size), np.uint8)
    ids = jax.ShapeDtypeStruct(export.symbolic_shape(f"b, {text.context_length}"), np.int32)
    result = jax.ShapeDtypeStruct(export.symbolic_shape(f"b, {video.embed_dim}"), np.float32)
    functions = {}
    for name, tower, function, argument in (
        ("encode_video", "video/", functools.partial(video_embedding, harvest), clips),
        ("encode_text", "text/", functools.partial(text_embedding, harvest), ids),
    ):
        names = ("clips" if tower == "video/" else "ids", "embeddings")
        try:
            model = onnx_model(function, _parameters(tensors, tower), argument, names, int8)
        except NotImplementedError as error:
            raise DataError(f"{tensors.where}: {name} has no form in ONNX here: {one_line(error, 300)}") from error
        _save(model, aside / f"{name}.onnx")
        functions[name] = {"file": f"{name}.onnx", "input": json_array(argument), "output": json_array(result)}
        functions[name]["names"] = dict(zip(("input", "output"), names, strict=True))
    return {
        "format": FORMAT,
        **facts(config, tensors, tokenizer, aside),
        "functions": functions,
        "weights": "int8 (matrices), float32" if int8 else "float32",
        "opset": OPSET,
        "ir_version": IR_VERSION,
        "written_by": {"harvest_jax": __version__, "jax": jax.__version__, "onnx": onnx.__version__},
    }


def _parameters(tensors: Tensors, tower: str) -> Any:
    flat = {}
    for name in tensors.entries:
        if name.startswith(tower):
            flat[name] = np.array(tensors.read(name), np.float32)
            if not all_finite(flat[name]):
                raise DataError(f"{tensors.where}: {name} holds numbers that are not finite")
    return traverse_util.unflatten_dict(flat, sep="/")


def _save(model: onnx.ModelProto, path: Path) -> None:
    """Write and check a model; large weights go to a file of their own beside it."""
    beside = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > ONE_FILE
    onnx.save_model(model, path, save_as_external_data=beside, location=f"{path.name}.data")
    onnx.checker.check_model(str(path))
