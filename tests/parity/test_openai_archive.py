"""OpenAI's own module: from a TorchScript archive in the published form to our towers, block by block, and back."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `parity` is not installed: make parity")
pytest.importorskip("transformers", reason="the extra `parity` is not installed: make parity")

from harvest_jax.weights.export_model import export_model  # noqa: E402
from harvest_jax.weights.folder import load_config  # noqa: E402
from tests.parity import compare, torch_clip  # noqa: E402
from tests.parity.files import open_folder, read  # noqa: E402
from tests.parity.sizes import OPENAI_SIZES  # noqa: E402

pytestmark = pytest.mark.parity
PUBLISHED = pytest.mark.parametrize("size", OPENAI_SIZES, indirect=True)


def test_embeddings(size, reference, ours, measured):
    theirs = reference.outputs["openai"]
    for tower in ("image", "text"):
        difference = compare.embedding_difference(getattr(ours.float32, tower), getattr(theirs, tower))
        measured(size, f"{tower} embedding", "OpenAI's module", difference, compare.EMBEDDING_BOUND)


def test_logits(size, reference, ours, measured):
    theirs = reference.outputs["openai"].logits
    difference = float(np.abs(ours.float32.logits - theirs).max() / np.abs(theirs).max())
    measured(size, "logits, relative", "OpenAI's module", difference, compare.BLOCK_BOUND)


def test_every_block(size, reference, ours, measured):
    theirs = reference.outputs["openai"]
    for tower, layers in (("image", reference.config.video.layers), ("text", reference.config.text.layers)):
        found = compare.block_differences(getattr(ours.float32, f"{tower}_layers"), getattr(theirs, f"{tower}_layers"))
        assert len(found) == layers + 1
        measured(size, f"{tower} blocks, relative", "OpenAI's module", max(found), compare.BLOCK_BOUND)


@PUBLISHED
def test_archive_says_what_it_is(size, reference, imported):
    assert load_config(imported["archive"]) == reference.config


@PUBLISHED
def test_archive_gives_the_numbers_of_the_other_files(size, imported):
    """In the published float16 where OpenAI's `convert_weights` puts it, in float32 elsewhere."""
    archive, other = open_folder(imported["archive"]), open_folder(imported["transformers"])
    assert set(archive) == set(other)
    for name, place in archive.items():
        found, wanted = read(place), read(other[name])
        whole = any(part in name for part in ("ln_", "embedding", "logit_scale")) and "patch_embedding" not in name
        # frames: no file has them, zeros
        expected_dtype = np.float32 if whole and name != "video/temporal_embedding" else found.dtype
        assert found.dtype == expected_dtype, name
        assert whole or found.dtype == np.float16, name
        assert np.array_equal(found, wanted.astype(found.dtype)), name


@pytest.mark.parametrize("size", ["B/32"], indirect=True)
def test_archive_in_float32(size, imported):
    archive, other = open_folder(imported["archive_float32"]), open_folder(imported["transformers"])
    assert set(archive) == set(other)
    for name, place in archive.items():
        found, wanted = read(place), read(other[name])
        assert found.dtype == wanted.dtype == np.float32, name
        assert np.array_equal(found, wanted), name


@PUBLISHED
def test_export_with_openais_names_loads_strictly(size, reference, imported, out):
    export_model(imported["archive"], "open_clip", out)
    state = {name: torch.from_numpy(read(place)) for name, place in open_folder(out).items()}
    archive = torch_clip.archive_tensors(reference.files["archive"])
    assert set(state) == set(archive)
    for name, tensor in archive.items():
        assert state[name].dtype == tensor.dtype, name
        assert torch.equal(state[name], tensor), name
    torch_clip.filled(torch_clip.openai_clip(reference.config), state)
