"""OpenCLIP: a bare file of its names, its own module, and its folder."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `parity` is not installed: make parity")
pytest.importorskip("transformers", reason="the extra `parity` is not installed: make parity")

from harvest_jax.errors import ConfigError  # noqa: E402
from harvest_jax.weights.export_model import export_model  # noqa: E402
from harvest_jax.weights.families.family import Overrides  # noqa: E402
from harvest_jax.weights.families.recognise import family_of  # noqa: E402
from harvest_jax.weights.files.open_checkpoint import open_checkpoint  # noqa: E402
from harvest_jax.weights.folder import load_config  # noqa: E402
from harvest_jax.weights.import_checkpoint import import_checkpoint  # noqa: E402
from tests.parity import compare, torch_clip  # noqa: E402
from tests.parity.files import open_folder, read  # noqa: E402
from tests.parity.sizes import OPEN_CLIP_SIZES  # noqa: E402

pytestmark = [pytest.mark.parity, pytest.mark.parametrize("size", OPEN_CLIP_SIZES, indirect=True)]


def test_embeddings_and_logits(size, reference, ours, measured):
    torch_clip.package_folder("open_clip", "model.py")  # skips
    theirs = reference.outputs["open_clip"]
    for tower in ("image", "text"):
        difference = compare.embedding_difference(getattr(ours.float32, tower), getattr(theirs, tower))
        measured(size, f"{tower} embedding", "OpenCLIP's module", difference, compare.EMBEDDING_BOUND)
    difference = float(np.abs(ours.float32.logits - theirs.logits).max() / np.abs(theirs.logits).max())
    measured(size, "logits, relative", "OpenCLIP's module", difference, compare.BLOCK_BOUND)


def test_bare_file_gives_the_numbers_of_the_other_files(size, reference, imported):
    assert load_config(imported["open_clip"]) == reference.config
    bare, other = open_folder(imported["open_clip"]), open_folder(imported["transformers"])
    assert set(bare) == set(other)
    for name, place in bare.items():
        found, wanted = read(place), read(other[name])
        assert found.dtype == wanted.dtype, name
        assert found.tobytes() == wanted.tobytes(), name


def test_bare_file_needs_its_activation_said(size, reference, tmp_path):
    with pytest.raises(ConfigError, match="activation"):
        import_checkpoint(reference.files["open_clip"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_export_comes_back_from_its_folder_and_loads_strictly(size, reference, imported, out):
    export_model(imported["open_clip"], "open_clip", out)
    theirs = open_checkpoint(out)
    found = family_of(theirs).architecture(theirs, Overrides())  # its open_clip_config.json says the activation
    assert found == reference.config
    state = {name: torch.from_numpy(read(place)) for name, place in open_folder(out).items()}
    written = torch.load(reference.files["open_clip"], mmap=True, weights_only=True)
    assert set(state) == set(written)
    for name, tensor in written.items():
        assert torch.equal(state[name], tensor), name
    torch_clip.package_folder("open_clip", "model.py")  # skips
    torch_clip.filled(torch_clip.open_clip(reference.config), state)
