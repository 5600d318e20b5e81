"""Mixes of two models: exact at both ends, straight between, and clear about what cannot be mixed."""

import dataclasses
import json

import numpy as np
import pytest

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.model.config import DecoderConfig, HarvestConfig, Preprocessing, TextConfig, VideoConfig
from harvest_jax.weights.folder import load_model
from harvest_jax.weights.mix import mix_models
from tests.helpers.model_folders import save_random_model

IMAGE = HarvestConfig(
    name="small",
    video=VideoConfig(image_size=8, patch_size=4, num_frames=1, width=16, layers=2, heads=2, embed_dim=12),
    text=TextConfig(vocab_size=40, context_length=10, width=16, layers=2, heads=2, embed_dim=12),
    decoder=None,
)
VIDEO = dataclasses.replace(
    IMAGE, video=dataclasses.replace(IMAGE.video, num_frames=3), decoder=DecoderConfig(1, 16, 2, 16, 40)
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "image": save_random_model(folder / "image", IMAGE, 0),
        "video": save_random_model(folder / "video", VIDEO, 1),
        "other": save_random_model(folder / "other", VIDEO, 2),
        "half": save_random_model(folder / "half", VIDEO, 3, np.float16),
    }


def flat(folder):
    from flax import traverse_util

    return traverse_util.flatten_dict(load_model(folder)[1], sep="/")


@pytest.mark.parametrize("pair", [("video", "other"), ("half", "video"), ("video", "half"), ("image", "image")])
def test_both_ends_are_exact(models, tmp_path, pair):
    first, second = (models[name] for name in pair)
    for alpha, expected in ((0.0, first), (1.0, second)):
        mix_models(first, second, alpha, tmp_path / str(alpha))
        found = flat(tmp_path / str(alpha))
        for name, array in flat(expected).items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_between_the_ends_it_is_straight(models, tmp_path):
    a, b = flat(models["video"]), flat(models["other"])
    for alpha in (0.25, 0.5, 0.9):
        done = mix_models(models["video"], models["other"], alpha, tmp_path / str(alpha))
        assert done["kept"] == []
        assert done["mixed"] == sum(array.size for array in a.values())
        for name, array in flat(tmp_path / str(alpha)).items():
            expected = (1 - alpha) * a[name].astype(np.float64) + alpha * b[name].astype(np.float64)
            np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_what_one_of_them_has_alone_is_the_seconds(models, tmp_path):
    done = mix_models(models["image"], models["video"], 0.0, tmp_path / "out")
    found, image, video = flat(tmp_path / "out"), flat(models["image"]), flat(models["video"])
    assert {name.split("/")[0] for name in done["kept"]} == {"decoder", "mask_embedding", "video"}
    assert [name for name in done["kept"] if name.startswith("video")] == ["video/temporal_embedding"]
    for name, array in found.items():
        np.testing.assert_array_equal(array, (video if name in done["kept"] else image)[name], err_msg=name)
    config, _ = load_model(tmp_path / "out")
    assert config == VIDEO
    origin = json.loads((tmp_path / "out/config.json").read_text())["origin"]["mixed"]
    assert (origin["first"], origin["second"], origin["alpha"]) == ("image", "video", 0.0)
    # the other way round the decoder has no place
    done = mix_models(models["video"], models["image"], 0.5, tmp_path / "image")
    assert load_model(tmp_path / "image")[0] == IMAGE
    assert done["kept"] == ["video/temporal_embedding"]


def test_another_decoder_is_not_mixed(models, tmp_path):
    deeper = dataclasses.replace(VIDEO, decoder=dataclasses.replace(VIDEO.decoder, heads=4, layers=1))
    save_random_model(tmp_path / "deeper", deeper, 5)
    done = mix_models(models["video"], tmp_path / "deeper", 0.5, tmp_path / "out")
    assert {name.split("/")[0] for name in done["kept"]} == {"decoder", "mask_embedding"}


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("video", "image_size", 16, r"video\.image_size \(8, 16\)"),
        ("video", "heads", 4, r"video\.heads \(2, 4\)"),
        ("text", "activation", "gelu", r"text\.activation \(quick_gelu, gelu\)"),
        ("text", "layers", 1, r"text\.layers \(2, 1\)"),
    ],
)
def test_different_towers_are_not_mixed(models, tmp_path, part, field, value, message):
    changed = dataclasses.replace(VIDEO, **{part: dataclasses.replace(getattr(VIDEO, part), **{field: value})})
    save_random_model(tmp_path / "changed", changed, 7)
    with pytest.raises(DataError, match=f"cannot be mixed: they differ in {message}"):
        mix_models(models["video"], tmp_path / "changed", 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_different_preprocessing_is_not_mixed(models, tmp_path):
    save_random_model(tmp_path / "squash", dataclasses.replace(VIDEO, preprocessing=Preprocessing(resize="squash")), 7)
    with pytest.raises(DataError, match=r"preprocessing\.resize \(crop, squash\)"):
        mix_models(models["video"], tmp_path / "squash", 0.5, tmp_path / "out")


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_is_a_share(models, tmp_path, alpha):
    with pytest.raises(ConfigError, match=r"must be from 0"):
        mix_models(models["video"], models["other"], alpha, tmp_path / "out")


def test_what_is_there_is_not_overwritten(models):
    with pytest.raises(DataError, match="exists already"):
        mix_models(models["video"], models["other"], 0.5, models["image"])
