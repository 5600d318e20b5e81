"""How pictures are prepared, as transformers itself writes it and reads it: `CLIPProcessor.save_pretrained`."""

from pathlib import Path

import pytest

from harvest_jax.cli import main
from harvest_jax.input.tokenizer import Tokenizer
from harvest_jax.weights.folder import load_config

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.parity
MEAN, STD = (0.5, 0.25, 0.125), (0.5, 0.75, 1.0)


def save_clip(folder: Path) -> None:
    """A tiny CLIP and its processor, with numbers that are not CLIP's."""
    tower = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 1}
    # The numbers of the special tokens are those of this cut vocabulary: other ones bring a warning.
    words = {"vocab_size": 600, "max_position_embeddings": 16, "bos_token_id": 598, "eos_token_id": 599}
    config = transformers.CLIPConfig(
        text_config=tower | words | {"pad_token_id": 599},
        vision_config=tower | {"image_size": 32, "patch_size": 8},
        projection_dim=32,
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    Tokenizer().save_vocabulary(folder)
    images = transformers.CLIPImageProcessorPil(
        image_mean=MEAN, image_std=STD, size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    transformers.CLIPProcessor(images, transformers.CLIPTokenizer.from_pretrained(folder)).save_pretrained(folder)


def test_what_transformers_saved_is_imported_and_what_is_exported_is_read_by_it(tmp_path):
    save_clip(tmp_path / "theirs")
    assert (tmp_path / "theirs/processor_config.json").is_file()
    assert not (tmp_path / "theirs/preprocessor_config.json").exists()
    assert main(["weights", "import", str(tmp_path / "theirs"), "--out", str(tmp_path / "ours")]) == 0
    preprocessing = load_config(tmp_path / "ours").preprocessing
    assert (preprocessing.mean, preprocessing.std, preprocessing.resize) == (MEAN, STD, "crop")
    command = ["weights", "export", str(tmp_path / "ours"), "--format", "hf", "--out", str(tmp_path / "back")]
    assert main(command) == 0
    read = transformers.CLIPProcessor.from_pretrained(tmp_path / "back").image_processor
    assert (tuple(read.image_mean), tuple(read.image_std), read.size["shortest_edge"]) == (MEAN, STD, 32)
