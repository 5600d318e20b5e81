"""One size of CLIP: its references run and their files written, then those imported and our towers run.

In this order, with all of one side freed before the other begins: H/14 has a billion parameters.
"""

import dataclasses
import gc
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from harvest_jax.input.tokenizer import Tokenizer
from harvest_jax.model.config import HarvestConfig, Preprocessing, harvest_config
from harvest_jax.weights.families.family import Overrides
from harvest_jax.weights.folder import load_model
from harvest_jax.weights.import_checkpoint import import_checkpoint
from tests.parity import torch_clip, towers
from tests.parity.sizes import GRADIENT_SIZES, OPEN_CLIP_SIZES, OPENAI_SIZES, SIZES, SMALL
from tests.parity.torch_clip import Outputs
from tests.parity.towers import Batch

CAPTIONS = (
    "a photo of a cat.",
    "two dogs run over the snow and bark; " * 12,  # longer than the table: cut, the end token in the last place
    "Hello, wörld &amp; 😀!",
)


@dataclasses.dataclass
class Reference:
    """What the references computed for a size, and what they wrote."""

    config: HarvestConfig
    batch: Batch
    pair: Batch  # as many pictures as captions, for the loss
    outputs: dict[str, Outputs]  # "openai", "transformers", "open_clip"
    files: dict[str, Path]  # "archive" (float16), "archive_float32", "transformers", "open_clip"


@dataclasses.dataclass
class Ours:
    """What the package computes from an imported file."""

    float32: Outputs
    bfloat16: Outputs


def make_reference(size: str, folder: Path) -> Reference:
    """Draw the numbers, run every reference on them, write every kind of file into `folder`."""
    config = harvest_config(size, num_frames=1, decoder_layers=0)
    small = size in SMALL
    rng = np.random.default_rng(1)
    side = config.video.image_size
    pictures = rng.integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    ids = Tokenizer()(CAPTIONS, config.text.context_length)
    end = int(ids[2].argmax())
    ids[2, end:] = ids[2, end]  # padded with end tokens, as Hugging Face's tokenizer does; the first one counts
    batch = Batch(pictures, ids) if small else Batch(pictures[:1], ids[1:])
    pair = Batch(pictures, ids[:2])
    made = Reference(config, batch, pair, {}, {})
    pixels, words = torch_clip.as_torch(config, batch)

    state = torch_clip.random_state(config, seed=SIZES.index(size), half=not small)
    model = torch_clip.filled(torch_clip.openai_clip(config), state)
    made.outputs["openai"] = torch_clip.openai_outputs(model, pixels, words)
    if size in GRADIENT_SIZES:
        made.outputs["openai"].gradients = torch_clip.openai_gradients(model, *torch_clip.as_torch(config, pair))
    if size in OPENAI_SIZES:
        if size == "B/32":
            made.files["archive_float32"] = folder / "float32.pt"
            torch_clip.save_openai_archive(model, made.files["archive_float32"], half=False)
        made.files["archive"] = folder / "clip.pt"
        torch_clip.save_openai_archive(model, made.files["archive"], half=True)

    model = torch_clip.filled(torch_clip.hugging_face_clip(config), torch_clip.hugging_face_state(state))
    made.outputs["transformers"] = torch_clip.hugging_face_outputs(model, pixels, words)
    if size == "B/32":
        made.outputs["transformers"].gradients = torch_clip.hugging_face_gradients(
            model, *torch_clip.as_torch(config, pair)
        )
    made.files["transformers"] = folder / "transformers"
    transformers.utils.logging.disable_progress_bar()
    (model if small else model.half()).save_pretrained(made.files["transformers"], max_shard_size="200MB")

    del model
    if size in OPEN_CLIP_SIZES:
        if torch_clip.has_open_clip():
            model = torch_clip.filled(torch_clip.open_clip(config), state)
            made.outputs["open_clip"] = torch_clip.open_clip_outputs(model, pixels, words)
            del model
        made.files["open_clip"] = folder / "open_clip_pytorch_model.bin"
        torch.save(
            {name: tensor if small else tensor.half() for name, tensor in state.items()}, made.files["open_clip"]
        )
    del state
    gc.collect()
    return made


def import_files(made: Reference, folder: Path) -> dict[str, Path]:
    """Every file as a model folder, by the function behind `harvest weights import`."""
    clip = Preprocessing()
    overrides = {
        "open_clip": Overrides(activation=made.config.video.activation),  # a bare file does not say it
        "transformers": Overrides(resize=clip.resize, mean=clip.mean, std=clip.std),  # saved without its processor
    }
    folders = {}
    for kind, path in made.files.items():
        folders[kind] = folder / kind
        import_checkpoint(path, folders[kind], overrides.get(kind, Overrides()))
    return folders


def run_ours(made: Reference, folder: Path) -> Ours:
    """The package's towers with the parameters of a model folder."""
    config, params = load_model(folder)
    params = jax.tree.map(jnp.asarray, params)
    image, text = towers.embeddings(config, params, made.batch, jnp.float32)
    outputs = Outputs(
        image,
        text,
        towers.logits(params, image, text),
        towers.image_layers(config, params, made.batch),
        towers.text_layers(config, params, made.batch),
    )
    if "openai" in made.outputs and made.outputs["openai"].gradients is not None:
        outputs.gradients = towers.gradients(config, params, made.pair)
    return Ours(outputs, Outputs(*towers.embeddings(config, params, made.batch, jnp.bfloat16)))
