"""Both towers, the logits and every block against transformers' CLIPModel, from a folder that it wrote itself."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `parity` is not installed: make parity")
pytest.importorskip("transformers", reason="the extra `parity` is not installed: make parity")

from harvest_jax.weights.export_model import export_model  # noqa: E402
from harvest_jax.weights.folder import load_config  # noqa: E402
from tests.parity import compare, torch_clip  # noqa: E402
from tests.parity.files import equal_tensors  # noqa: E402

pytestmark = pytest.mark.parity


def test_embeddings(size, reference, ours, measured):
    theirs = reference.outputs["transformers"]
    for tower in ("image", "text"):
        difference = compare.embedding_difference(getattr(ours.float32, tower), getattr(theirs, tower))
        measured(size, f"{tower} embedding", "transformers", difference, compare.EMBEDDING_BOUND)


def test_logits(size, reference, ours, measured):
    theirs = reference.outputs["transformers"].logits
    difference = float(np.abs(ours.float32.logits - theirs).max() / np.abs(theirs).max())
    measured(size, "logits, relative", "transformers", difference, compare.BLOCK_BOUND)


def test_every_block(size, reference, ours, measured):
    theirs = reference.outputs["transformers"]
    for tower, layers in (("image", reference.config.video.layers), ("text", reference.config.text.layers)):
        found = compare.block_differences(getattr(ours.float32, f"{tower}_layers"), getattr(theirs, f"{tower}_layers"))
        assert len(found) == layers + 1
        measured(size, f"{tower} blocks, relative", "transformers", max(found), compare.BLOCK_BOUND)


def test_the_folder_was_in_shards_and_the_architecture_came_from_it(size, reference, imported):
    folder = reference.files["transformers"]
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    config = load_config(imported["transformers"])
    assert config == reference.config


def test_export_holds_the_very_numbers_and_loads_strictly(size, reference, imported, out):
    export_model(imported["transformers"], "hf", out)
    again = equal_tensors(out, reference.files["transformers"])
    model = torch_clip.hugging_face_clip(reference.config)
    torch_clip.filled(model, again)


@pytest.mark.parametrize("size", ["B/32"], indirect=True)
def test_export_opens_with_from_pretrained(size, reference, imported, measured, out):
    from transformers import CLIPModel

    export_model(imported["archive_float32"], "hf", out)
    model, report = CLIPModel.from_pretrained(out, output_loading_info=True)
    assert not any(report.values())
    found = torch_clip.hugging_face_outputs(model.eval(), *torch_clip.as_torch(reference.config, reference.batch))
    for tower in ("image", "text"):
        # the same numbers in another class of theirs: from OpenAI's archive to CLIPModel through this package
        difference = compare.embedding_difference(getattr(found, tower), getattr(reference.outputs["openai"], tower))
        measured(size, f"{tower} embedding", "OpenAI's, in CLIPModel", difference, compare.EMBEDDING_BOUND)
