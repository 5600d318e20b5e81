"""`config.json` and the image processor's files beside Hugging Face's tensors."""

import json

import pytest
from safetensors.numpy import save_file

from harvest_jax.cli import main
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.model.config import Preprocessing
from harvest_jax.weights.families.family import Overrides
from harvest_jax.weights.families.hugging_face import HUGGING_FACE
from harvest_jax.weights.folder import load_config
from tests.helpers.checkpoint_tensors import architecture, arrays_of, changed, of_family

CLIP = Overrides(resize="crop", mean=Preprocessing().mean, std=Preprocessing().std)
HF_CONFIG = {
    "model_type": "clip",
    "vision_config": {"num_attention_heads": 4, "hidden_act": "gelu", "image_size": 12},
    "text_config": {"num_attention_heads": 2, "eos_token_id": 2},
}


def test_hugging_face_configs_are_read():
    pictures = {
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_center_crop": False,
        "resample": 3,
        "size": {"height": 12, "width": 12},
    }
    found = architecture(HUGGING_FACE, {"config": HF_CONFIG, "preprocessor_config": pictures})
    assert (found.video.heads, found.video.activation) == (4, "gelu")
    assert (found.text.heads, found.text.activation) == (2, "quick_gelu")  # transformers' default
    assert found.preprocessing == Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "squash")
    old = {"vision_config": {}, "vision_config_dict": {"num_attention_heads": 1}, "text_config": None}
    found = architecture(HUGGING_FACE, {"config": old, "preprocessor_config": {}})
    assert (found.video.heads, found.text.heads, found.preprocessing) == (1, 8, Preprocessing())


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model_type", "siglip", "is a 'siglip' model"),
        ("vision_config.hidden_act", "gelu_new", "has the activation 'gelu_new'"),
        ("text_config.layer_norm_eps", 1e-6, "epsilon of 1e-06"),
        ("text_config.layer_norm_eps", "x", "expected a number"),
        ("text_config.layer_norm_eps", 10**400, "expected a number"),
        ("text_config.layer_norm_eps", float("nan"), "expected a number"),
        ("text_config.eos_token_id", 7, "captions end with token 7"),
        ("text_config.num_attention_heads", 5, "width 64 cannot have 5 heads"),
        ("text_config.num_attention_heads", 0, "positive whole number"),
    ],
)
def test_hugging_face_models_that_are_no_plain_clip_are_refused(path, value, message):
    with pytest.raises((DataError, ConfigError)) as caught:
        architecture(HUGGING_FACE, {"config": changed(HF_CONFIG, path, value), "preprocessor_config": {}})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("pictures", "resize"),
    [
        ({"size": 12, "crop_size": 12, "do_center_crop": True}, "crop"),  # as openai/clip-vit-* were published
        ({"size": {"shortest_edge": 12}, "crop_size": {"height": 12, "width": 12}}, "crop"),
        ({}, "crop"),
        ({"size": {"height": 12, "width": 12}, "do_center_crop": False}, "squash"),
        ({"size": {"height": 12, "width": 12}, "crop_size": {"height": 12, "width": 12}}, "squash"),
        ({"size": {"shortest_edge": 16}, "crop_size": 12}, "the tower sees 12 x 12"),
        ({"size": {"shortest_edge": 12}, "do_center_crop": False}, "the tower sees 12 x 12"),
        ({"size": {"height": 16, "width": 16}, "do_center_crop": False}, "the tower sees 12 x 12"),
        ({"size": {"longest_edge": 12}}, "the tower sees 12 x 12"),
        ({"do_normalize": False}, "has do_normalize=False"),
        ({"do_resize": False}, "has do_resize=False"),
        ({"do_rescale": False}, "has do_rescale=False"),
        ({"rescale_factor": 1.0}, "has rescale_factor=1.0"),
        ({"image_mean": [0.5, float("nan"), 0.5]}, "three numbers"),
        ({"image_std": [0.5, float("nan"), 0.5]}, "three numbers"),
    ],
)
def test_what_a_hugging_face_processor_does_is_understood_or_refused(pictures, resize):
    details = {"config": HF_CONFIG, "preprocessor_config": pictures}
    if resize in ("crop", "squash"):
        assert architecture(HUGGING_FACE, details).preprocessing.resize == resize
    else:
        with pytest.raises(DataError, match=resize):
            architecture(HUGGING_FACE, details)


def test_a_bilinear_processor_is_refused():
    with pytest.raises(DataError, match="has resample=2"):
        architecture(HUGGING_FACE, {"config": HF_CONFIG, "preprocessor_config": {"resample": 2}})


# What `CLIPProcessor.save_pretrained` of transformers 5 writes: this file alone, and none of the image processor's own.
PROCESSOR = {
    "image_processor": {
        "crop_size": {"height": 12, "width": 12},
        "data_format": "channels_first",
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.4, 0.3],
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.25, 0.2, 0.1],
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": 12, "width": 12},
    },
    "processor_class": "CLIPProcessor",
}
FOUND = Preprocessing((0.5, 0.4, 0.3), (0.25, 0.2, 0.1), "squash")


@pytest.fixture
def folder(tmp_path):
    """A folder of `CLIPModel.save_pretrained`, without a processor."""
    path = tmp_path / "clip"
    path.mkdir()
    save_file(arrays_of(of_family(HUGGING_FACE)), path / "model.safetensors", {"format": "pt"})
    (path / "config.json").write_text(json.dumps(HF_CONFIG))
    return path


def test_the_processor_of_transformers_5_is_read(folder):
    (folder / "processor_config.json").write_text(json.dumps(PROCESSOR))
    out = folder.parent / "out"
    assert main(["weights", "import", str(folder), "--out", str(out)]) == 0
    assert load_config(out).preprocessing == FOUND


def test_the_processor_of_transformers_4_is_read(folder):
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR["image_processor"]))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    out = folder.parent / "out"
    assert main(["weights", "import", str(folder), "--out", str(out)]) == 0
    assert load_config(out).preprocessing == FOUND


def test_without_a_processor_the_user_must_say_it(folder, capsys):
    out = folder.parent / "out"
    for words in ([], ["--mean", "0.5", "0.5", "0.5", "--std", "0.5", "0.5", "0.5"]):
        assert main(["weights", "import", str(folder), "--out", str(out), *words]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"harvest weights: {folder} does not say how its pictures were prepared: add its ")
        assert "give --resize, --mean and --std" in said
        assert said.count("\n") == 1
    assert not out.exists()
    assert main(["weights", "import", str(folder), "--out", str(out), *words, "--resize", "squash"]) == 0
    assert load_config(out).preprocessing == Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "squash")
    assert main(["inspect", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "does not say how its pictures were prepared" in found["problem"]
    assert found["model"]["preprocessing"] is None
    assert found["model"]["video"]["activation"] == "gelu"


def test_two_processors_that_disagree_are_refused(folder, capsys):
    (folder / "processor_config.json").write_text(json.dumps(PROCESSOR))
    (folder / "preprocessor_config.json").write_text(
        json.dumps(PROCESSOR["image_processor"] | {"image_std": [1, 1, 1]})
    )
    assert main(["weights", "import", str(folder), "--out", str(folder.parent / "out")]) == 3
    said = capsys.readouterr().err
    assert "processor_config.json says resize squash" in said
    assert "std (1.0, 1.0, 1.0): remove the file that is wrong" in said


@pytest.mark.parametrize("settings", [[], "x", {"do_resize": False}, {"image_mean": "y"}])
def test_a_malformed_processor_is_refused(folder, settings, capsys):
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    assert main(["weights", "import", str(folder), "--out", str(folder.parent / "out")]) == 3
    assert capsys.readouterr().err.startswith(f"harvest weights: {folder}/processor_config.json")


def test_a_complete_override_needs_no_file():
    assert architecture(HUGGING_FACE, {"config": HF_CONFIG}, overrides=CLIP).preprocessing == Preprocessing()


def test_an_override_goes_before_the_file():
    details = {"config": HF_CONFIG, "processor_config": PROCESSOR}
    found = architecture(HUGGING_FACE, details, overrides=Overrides(resize="crop"))
    assert found.preprocessing == Preprocessing(FOUND.mean, FOUND.std, "crop")
