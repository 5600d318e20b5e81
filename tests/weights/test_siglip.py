"""SigLIP's two forms: the same numbers from both, what comes with them, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import harvest_jax
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.model.config import HarvestConfig
from harvest_jax.weights.export_model import export_model
from harvest_jax.weights.families.family import Overrides
from harvest_jax.weights.families.recognise import recognised
from harvest_jax.weights.families.siglip import BIG_VISION_SIGLIP, HUGGING_FACE_SIGLIP
from harvest_jax.weights.files.open_checkpoint import open_checkpoint
from harvest_jax.weights.folder import load_config, load_model
from harvest_jax.weights.import_checkpoint import import_checkpoint
from harvest_jax.weights.mix import mix_models
from harvest_jax.weights.translate import to_family
from tests.helpers.checkpoint_tensors import IMAGE, SIGLIP, arrays_of, changed, native
from tests.helpers.tokenizer_files import write_sentencepiece

VISION = {"num_attention_heads": 2, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
CONFIG = {"model_type": "siglip", "vision_config": VISION, "text_config": VISION | {"num_attention_heads": 1}}
PICTURES = {"size": {"height": 12, "width": 12}, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def scaled(family):
    """The tensors of a small SigLIP, the same numbers in each family's names."""
    ours = native(SIGLIP)
    small = dataclasses.replace(ours, read=lambda name: np.float32(0.3) * np.sin(ours.read(name)))
    return arrays_of(to_family(small, family, SIGLIP))


def hugging_face(folder, config=CONFIG, pictures=PICTURES):
    folder.mkdir()
    save_file(
        {name: np.ascontiguousarray(a) for name, a in scaled(HUGGING_FACE_SIGLIP).items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    write_sentencepiece(folder / "tokenizer.json")
    return folder


def big_vision(path, scanned=False):
    """An npz as big_vision writes it; scanned: one array for all layers."""
    arrays = {f"params/{name}": array for name, array in scaled(BIG_VISION_SIGLIP).items()}
    if scanned:
        first = [name for name in arrays if "encoderblock_0/" in name]
        layers = {"params/img/Transformer": 3, "params/txt/Encoder_0": 2}
        for name in first:
            count = next(n for tower, n in layers.items() if name.startswith(tower))
            parts = [arrays.pop(name.replace("encoderblock_0/", f"encoderblock_{layer}/")) for layer in range(count)]
            arrays[name.replace("encoderblock_0/", "encoderblock/")] = np.stack(parts)
    np.savez(path, **arrays)
    return path


def same(one, other):
    (config, params), (other_config, other_params) = load_model(one), load_model(other)
    assert config == other_config
    flat, other_flat = (dict(_flat(tree)) for tree in (params, other_params))
    assert flat.keys() == other_flat.keys()
    for name, array in flat.items():
        np.testing.assert_array_equal(array, other_flat[name], err_msg=name)


def _flat(tree, path=""):
    for name, value in tree.items():
        yield from _flat(value, f"{path}{name}/") if isinstance(value, dict) else [(path + name, value)]


def test_both_forms_give_the_same_model(tmp_path):
    done = import_checkpoint(hugging_face(tmp_path / "hf"), tmp_path / "a")
    assert (done["family"], done["model"], done["notes"]) == ("Hugging Face SigLIP", SIGLIP.name, [])
    config = load_config(tmp_path / "a")
    text = dataclasses.replace(config.text, tokenizer="")
    assert dataclasses.replace(config, text=text) == SIGLIP
    assert len(config.text.tokenizer) == 64
    for scanned in (False, True):
        source = big_vision(tmp_path / f"{scanned}.npz", scanned)
        out = tmp_path / f"out {scanned}"
        with pytest.raises(ConfigError, match=r"give --tokenizer FILE"):
            import_checkpoint(source, out)
        done = import_checkpoint(source, out, tokenizer=tmp_path / "hf/tokenizer.json")
        assert done["family"] == "big_vision SigLIP"
        # heads are in big_vision's shapes; its activation and epsilon in its code
        same(tmp_path / "a", out)


def test_it_embeds_with_its_own_tokenizer_and_travels_with_it(tmp_path):
    import_checkpoint(hugging_face(tmp_path / "hf"), tmp_path / "a", num_frames=2)
    model = harvest_jax.load(tmp_path / "a")
    texts = model.encode_text(["A dog!", "a dog", "a log"])
    np.testing.assert_array_equal(texts[0], texts[1])
    assert np.abs(texts[0] - texts[2]).max() > 1e-5
    frames = np.random.default_rng(0).integers(0, 256, (1, 2, 12, 12, 3), np.uint8)
    whole, half = model.encode_video(frames), model.keeping(0.5).encode_video(frames)
    assert whole.shape == half.shape == (1, 128)
    assert np.abs(whole - half).max() > 1e-5
    mix_models(tmp_path / "a", tmp_path / "a", 0.5, tmp_path / "mixed")
    import_checkpoint(tmp_path / "mixed", tmp_path / "again")
    again = harvest_jax.load(tmp_path / "again").encode_text(["a dog"])
    np.testing.assert_allclose(again[0], texts[1], atol=1e-6)  # of another batch size
    export_model(tmp_path / "a", "safetensors", tmp_path / "x.safetensors")
    import_checkpoint(tmp_path / "x.safetensors", tmp_path / "b", tokenizer=tmp_path / "a/tokenizer.json")
    same(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b/tokenizer.json").write_bytes((tmp_path / "a/tokenizer.json").read_bytes() + b" ")
    with pytest.raises(DataError, match="is not the tokenizer of this model"):
        harvest_jax.load(tmp_path / "b")
    with pytest.raises(DataError, match="no class token"):
        model.attention(frames)


def test_what_the_files_of_siglip_2_say(tmp_path):
    pictures = PICTURES | {"resample": 2}
    done = import_checkpoint(hugging_face(tmp_path / "hf", pictures=pictures), tmp_path / "a")
    assert "bilinear" in done["notes"][0]
    naflex = changed(CONFIG, "model_type", "siglip2")
    with pytest.raises(DataError, match=r"'siglip2' model .* NaFlex"):
        import_checkpoint(hugging_face(tmp_path / "naflex", naflex), tmp_path / "b")
    eps = changed(CONFIG, "text_config.layer_norm_eps", 1e-5)
    with pytest.raises(DataError, match=r"epsilon of 1e-05; SigLIP's is 1e-06"):
        import_checkpoint(hugging_face(tmp_path / "eps", eps), tmp_path / "b")


def test_a_bare_file_says_what_is_assumed(tmp_path):
    folder = hugging_face(tmp_path / "hf")
    done = import_checkpoint(folder / "model.safetensors", tmp_path / "a")
    assert "attention heads" in done["notes"][0]
    assert load_config(tmp_path / "a").preprocessing == SIGLIP.preprocessing


def test_a_big_vision_file_is_no_vivit(tmp_path):
    family, tensors = recognised(open_checkpoint(big_vision(tmp_path / "x.npz", scanned=True)))
    assert family is BIG_VISION_SIGLIP
    assert family.architecture(tensors, Overrides()) == SIGLIP


def test_what_is_as_in_clip_is_not_written():
    assert set(IMAGE.to_dict()["video"]) == {
        *("image_size", "patch_size", "num_frames", "width", "layers", "heads", "embed_dim", "activation"),
    }
    assert "logit_bias" not in IMAGE.to_dict()
    assert HarvestConfig.from_dict(json.loads(json.dumps(SIGLIP.to_dict()))) == SIGLIP
    for path, value in (
        ("video.pooling", "mean"),
        ("video.pooling", "class"),
        ("video.norm_eps", 0.0),
        ("video.mlp_width", -1),
        ("video.embed_dim", 64),
        ("text.tokenizer", "x"),
        ("text.pooling", "first"),
    ):
        with pytest.raises(ValueError, match=r".+"):
            HarvestConfig.from_dict(changed(SIGLIP.to_dict(), path, value))
