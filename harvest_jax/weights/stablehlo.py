"""A model as StableHLO programs that run with jax alone: `encode_video` and `encode_text`, for CPU, CUDA and TPU.

Two programs, each with its weights in a file beside it, and `signature.json`, which says how to call them; an example
is in docs/stablehlo.md. Weights are an argument and not constants of the program: `jax.export` writes a flatbuffer,
which is limited to 2 GiB (the video tower of an H/14 has 2.5 GB in float32), and the constants of an L/14 (1.2 GB) took
8.4 GB of memory to write instead of 0.6 GB. A program has 25 kB for a model of any size.

What `jax.export` promises (https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees): a program runs
on releases of jax and jaxlib up to 6 months newer than those that wrote it, and up to 3 weeks older. Keep the model
folder: the programs can be written again from it.
"""

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jaxlib
import numpy as np
from flax import traverse_util
from jax import export

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.input.file_tokenizer import FileTokenizer, TextTokenizer
from harvest_jax.model.config import IMAGE_MODEL_FRAMES, HarvestConfig
from harvest_jax.model.harvest import Harvest
from harvest_jax.model.inference import text_embedding, video_embedding
from harvest_jax.version import __version__
from harvest_jax.weights.files.open_checkpoint import TOKENIZER
from harvest_jax.weights.files.safetensors_writer import write_safetensors
from harvest_jax.weights.files.tensors import Tensors, TensorSpec
from harvest_jax.weights.folder import load_tokenizer, open_parameters
from harvest_jax.weights.new_output import new_folder

PLATFORMS = ("cpu", "cuda", "tpu")
SIGNATURE = "signature.json"
FORMAT = "harvest_jax stablehlo 1"


def export_stablehlo(folder: Path, out: Path, batch: int | None = None) -> Tensors:
    """Write the programs of a model folder; the output folder appears whole or not at all.

    encode_video takes the flat dict of its weights and uint8 RGB [b, T, S, S, 3]: frames that are squares of the
    model's size, not normalised. T is symbolic for an image model, which averages over frames. encode_text takes its
    weights and int32 ids [b, l], l up to the context length. Both give float32 [b, D], L2-normalised, equal to those of
    `harvest_jax.load(folder)`. The decoder of masked words is left out.

    Args:
      folder: a model folder.
      out: a folder that does not exist yet, or is empty.
      batch: b is this number, l the context length and T of an image model `IMAGE_MODEL_FRAMES`, for compilers that
        take fixed shapes alone; None: they are symbolic.

    Returns:
      the parameters of the model folder.

    Raises:
      ConfigError: `batch` is below 1.
      DataError: the model folder cannot be used, or `out` exists already or cannot be written.
    """
    if batch is not None and batch < 1:
        raise ConfigError(f"batch={batch}: must be 1 or more")
    config, tensors = open_parameters(folder)
    with new_folder(out) as aside:
        signature = _write(aside, config, tensors, load_tokenizer(config, folder), batch)
        (aside / SIGNATURE).write_text(json.dumps(signature, indent=2) + "\n", encoding="utf-8")
    return tensors


def _write(
    aside: Path, config: HarvestConfig, tensors: Tensors, tokenizer: TextTokenizer, batch: int | None
) -> dict[str, Any]:
    """Write the programs and their weights; gives the content of signature.json."""
    video, text = config.video, config.text
    frames = video.num_frames if video.num_frames > 1 else "t" if batch is None else IMAGE_MODEL_FRAMES
    b = "b" if batch is None else batch
    length = text.context_length if text.fixed_length or batch is not None else "l"
    limits = [] if text.fixed_length or batch is not None else [f"l <= {text.context_length}"]
    size = f"{video.image_size}, {video.image_size}, 3"
    clips = jax.ShapeDtypeStruct(export.symbolic_shape(f"{b}, {frames}, {size}"), np.uint8)
    ids = jax.ShapeDtypeStruct(export.symbolic_shape(f"{b}, {length}", constraints=limits), np.int32)
    harvest = Harvest(config)
    parts = (
        ("encode_video", "video/", functools.partial(video_embedding, harvest), clips),
        ("encode_text", "text/", functools.partial(text_embedding, harvest), ids),
    )
    functions: dict[str, dict[str, Any]] = {}
    for name, tower, function, argument in parts:
        entries = {path: stored(entry) for path, entry in tensors.entries.items() if path.startswith(tower)}
        write_safetensors(aside / f"{name}.safetensors", entries, tensors.read, {"format": FORMAT})
        program = _program(function, entries, argument)
        (aside / f"{name}.stablehlo").write_bytes(program.serialize())
        functions[name] = {
            "program": f"{name}.stablehlo",
            "weights": f"{name}.safetensors",
            "input": json_array(argument),
            "output": json_array(program.out_avals[0]),
        }
    if limits:
        functions["encode_text"]["input"]["constraints"] = limits
    return {
        "format": FORMAT,
        **facts(config, tensors, tokenizer, aside),
        "functions": functions,
        "platforms": PLATFORMS,
        "calling_convention_version": program.calling_convention_version,
        "written_by": {"harvest_jax": __version__, "jax": jax.__version__, "jaxlib": jaxlib.__version__},
    }


def facts(config: HarvestConfig, tensors: Tensors, tokenizer: TextTokenizer, aside: Path) -> dict[str, Any]:
    """What a program that calls the towers must know: the model, how pictures are prepared, tokens, scale and bias.

    The file of a tokenizer that is not CLIP's is copied to `aside`.

    Raises:
      DataError: the scale, or its exponential, is not finite.
    """
    logit_scale = np.float32(tensors.read("logit_scale"))
    with np.errstate(over="ignore"):
        scale = float(np.exp(logit_scale))
    if not np.isfinite(scale):
        raise DataError(
            f"{tensors.where}: logit_scale is {float(logit_scale):g}, whose exponential is not finite: a trained "
            "CLIP's is at most 4.6 (ln 100)"
        )
    video = config.video
    tokens: dict[str, Any] = {"vocabulary": config.text.vocab_size, "start": tokenizer.sot, "end": tokenizer.eot}
    tokens["padding"] = tokenizer.pad
    if isinstance(tokenizer, FileTokenizer):
        shutil.copyfile(tokenizer.path, aside / TOKENIZER)
        tokens["file"] = TOKENIZER
    bias = {"logit_bias": float(tensors.read("logit_bias"))} if config.logit_bias else {}
    return {
        "model": config.to_dict() | {"decoder": None},
        "frames": {  # how pictures must be prepared, and what the program does itself
            "color": "RGB",
            "image_size": video.image_size,
            "resize": config.preprocessing.resize,
            "interpolation": "bicubic with antialias (Pillow)",
            "normalised_inside": {"mean": config.preprocessing.mean, "std": config.preprocessing.std},
        },
        "tokens": tokens,
        "logit_scale": scale,
        **bias,  # of the sigmoid loss: a probability is sigmoid(scale * cosine + bias)
    }


def stored(entry: TensorSpec) -> TensorSpec:
    """float16 stays; all other dtypes become float32, also bfloat16, which some readers of safetensors do not know."""
    return entry if entry.dtype == np.float16 else dataclasses.replace(entry, dtype=np.dtype(np.float32))


def _program(
    function: Callable[..., jax.Array], entries: dict[str, TensorSpec], argument: jax.ShapeDtypeStruct
) -> export.Exported:
    """`function(params, argument)` as a program with the arguments (flat dict of weights, argument)."""

    def flat(weights: dict[str, jax.Array], argument: jax.Array) -> jax.Array:
        params = {name: weight.astype(np.float32) for name, weight in weights.items()}
        return function(traverse_util.unflatten_dict(params, sep="/"), argument)

    weights = {name: jax.ShapeDtypeStruct(entry.shape, entry.dtype) for name, entry in entries.items()}
    return export.export(jax.jit(flat), platforms=PLATFORMS)(weights, argument)


def json_array(shape: Any) -> dict[str, Any]:
    """dtype and dimensions; symbolic dimensions by their names."""
    return {"dtype": str(shape.dtype), "shape": [side if isinstance(side, int) else str(side) for side in shape.shape]}
