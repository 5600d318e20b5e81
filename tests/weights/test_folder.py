"""Model folders: exact round trips, the packaged image model, and files that are not what they should be."""

import json

import jax
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from harvest_jax import cli
from harvest_jax.demo.image_clip import SHIPPED
from harvest_jax.describe import describe_model
from harvest_jax.errors import DataError
from harvest_jax.files import sha256_of
from harvest_jax.model.config import harvest_config
from harvest_jax.model.harvest import Harvest
from harvest_jax.weights.files.tensors import BFLOAT16, TensorSpec
from harvest_jax.weights.folder import load_config, load_model, open_model, save_model, save_tensors
from harvest_jax.weights.import_checkpoint import import_checkpoint
from harvest_jax.weights.mix import mix_models
from harvest_jax.weights.stablehlo import export_stablehlo
from tests.helpers.model_folders import without_digest
from tests.helpers.small_model import SMALL


@pytest.fixture
def folder(tmp_path):
    shapes = jax.eval_shape(Harvest(SMALL).init, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    params["video"]["proj"]["kernel"] = np.asfortranarray(params["video"]["proj"]["kernel"])  # laid out the other way
    save_model(tmp_path, SMALL, params, {"test": 1})
    return tmp_path, params


def test_round_trip_is_exact_and_keeps_scalars_and_layout(folder):
    path, params = folder
    config, loaded = load_model(path)
    assert config == SMALL
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)
    assert loaded["logit_scale"].shape == ()
    assert sorted(p.name for p in path.iterdir()) == ["config.json", "model.safetensors"]


def test_half_precision_halves_the_file(folder, tmp_path):
    path, params = folder
    half = tmp_path / "half"
    save_model(half, SMALL, params, {}, np.float16)
    ratio = (half / "model.safetensors").stat().st_size / (path / "model.safetensors").stat().st_size
    assert 0.4 < ratio < 0.65
    _, loaded = load_model(half)
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {np.dtype(np.float32)}


def test_a_folder_from_parameters_made_one_at_a_time(folder, tmp_path):
    _, params = folder
    flat = traverse_util.flatten_dict(params, sep="/")
    made = []

    def read(name):
        made.append(name)
        return flat[name]

    entries = {name: TensorSpec(leaf.shape, BFLOAT16) for name, leaf in flat.items()}
    save_tensors(tmp_path / "new" / "folder", SMALL, entries, read, {"from": "tests"})
    assert sorted(made) == sorted(flat)  # once each
    config, loaded = load_model(tmp_path / "new" / "folder")
    assert config == SMALL
    for name, leaf in traverse_util.flatten_dict(loaded, sep="/").items():
        assert leaf.dtype == np.float32
        assert leaf.flags.writeable
        np.testing.assert_array_equal(leaf, flat[name].astype(BFLOAT16).astype(np.float32))
    assert json.loads((tmp_path / "new" / "folder" / "config.json").read_text())["origin"] == {"from": "tests"}


def test_a_save_that_fails_leaves_what_was_there(folder, tmp_path):
    path, params = folder
    before = {item.name: item.read_bytes() for item in path.iterdir() if item.is_file()}
    spoilt = jax.tree.map(np.copy, params)
    spoilt["video"]["proj"]["kernel"][0, 0] = np.nan
    with pytest.raises(DataError, match="video/proj/kernel cannot be written: it holds numbers that are not finite"):
        save_model(path, SMALL, spoilt, {"other": 1})
    assert {item.name: item.read_bytes() for item in path.iterdir() if item.is_file()} == before
    with pytest.raises(DataError, match="not finite"):
        save_model(tmp_path / "fresh", SMALL, spoilt, {})
    assert not (tmp_path / "fresh").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file exists already"):
        save_model(tmp_path / "file", SMALL, params, {})


def test_the_packaged_image_model_loads_and_is_small():
    config, params = load_model(SHIPPED)
    assert config == harvest_config("demo", num_frames=1, decoder_layers=0)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) > 500_000
    assert (SHIPPED / "model.safetensors").stat().st_size <= 2_000_000
    assert "equal" in describe_model(SHIPPED)["sha256"]


def rewrite(path, change):
    flat = load_file(path / "model.safetensors")
    change(flat)
    save_file(flat, path / "model.safetensors")
    without_digest(path)


def test_every_flipped_bit_in_the_weights_is_noticed(folder, tmp_path, capsys):
    path, _ = folder
    weights = path / "model.safetensors"
    whole, rng = weights.read_bytes(), np.random.default_rng(0)
    start = 8 + int.from_bytes(whole[:8], "little")  # of the numbers
    for place in [*rng.integers(start, len(whole), 20), *rng.integers(0, start, 5)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        weights.write_bytes(damaged)
        for load in (load_model, open_model, describe_model, lambda path: mix_models(path, path, 0.5, tmp_path / "m")):
            with pytest.raises(DataError) as raised:
                load(path)
            if place >= start:
                assert "model.safetensors was altered or damaged: its SHA-256 is not the one in config" in str(
                    raised.value
                )
    assert cli.main(["weights", "import", str(path), "--out", str(tmp_path / "new")]) == 3
    assert capsys.readouterr().err.count("\n") == 1
    weights.write_bytes(whole)
    assert load_model(path)[0] == SMALL
    assert describe_model(path)["sha256"] == f"{sha256_of(weights)} (compared with model.safetensors: equal)"


def test_a_folder_without_a_digest_is_loaded_with_one_line(folder, tmp_path, caplog):
    path, _ = folder
    load_model(path)
    assert not caplog.records
    load_model(without_digest(path))
    [line] = [record.getMessage() for record in caplog.records]
    assert "has no digest of its weights" in line
    assert "none in config.json" in describe_model(path)["sha256"]
    import_checkpoint(path, tmp_path / "new")
    assert "compared" in describe_model(tmp_path / "new")["sha256"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda flat: flat.pop("logit_scale"), "logit_scale is missing"),
        (lambda flat: flat.update(extra=np.zeros(3, np.float32)), "extra is unknown"),
        (
            lambda flat: flat.update({"video/proj/kernel": np.zeros((2, 2), np.float32)}),
            r"shape \(2, 2\), expected \(16, 12\)",
        ),
        (
            lambda flat: flat.update(logit_scale=np.array(np.nan, np.float32)),
            "logit_scale holds numbers that are not",
        ),
    ],
)
def test_wrong_contents_are_named(folder, change, message):
    path, _ = folder
    rewrite(path, change)
    with pytest.raises(DataError, match=message):
        load_model(path)


def test_broken_files_are_named(folder):
    path, _ = folder
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be read"):
        load_model(path)
    weights.unlink()
    with pytest.raises(DataError, match=r"holds no model\.safetensors"):
        load_model(path)
    for text in ("", "[]", "[" * 5000, "{}", json.dumps({"model": {"name": "x"}})):
        (path / "config.json").write_text(text)
        with pytest.raises(DataError, match=r"is not a model folder|is not JSON|holds no JSON object"):
            load_config(path)
    with pytest.raises(DataError, match="nowhere does not exist"):
        load_config(path / "nowhere")


IMPOSSIBLE = [
    ("video", []),
    ("preprocessing", []),
    ("preprocessing", {"std": [0.5, float("nan"), 0.5]}),
    ("preprocessing", {"mean": [0.5, float("inf"), 0.5]}),
    ("preprocessing", {"mean": [0.5, 10**400, 0.5]}),
    ("preprocessing", {"mean": ["a", "b", "c"]}),
    ("video.heads", 0),
    ("video.heads", 3),
    ("video.heads", 1000),
    ("video.width", "a"),
    ("video.width", True),
    ("text.layers", [1]),
    ("text.vocab_size", 1 << 40),
    ("decoder.layers", -1),
    ("name", "a\n\x1b[2J"),
]


def test_configs_of_no_model(folder):
    path, _ = folder
    text = (path / "config.json").read_text()
    for place, value in IMPOSSIBLE:
        found = json.loads(text)
        part, _, field = place.partition(".")
        if field:
            found["model"][part][field] = value
        else:
            found["model"][part] = value
        (path / "config.json").write_text(json.dumps(found))
        for load in (load_config, load_model, lambda path: export_stablehlo(path, path / "out")):
            with pytest.raises(DataError, match="does not describe a model of this package") as raised:
                load(path)
            assert str(raised.value).isprintable(), place


def test_names_from_the_file_are_escaped(folder):
    path, _ = folder
    rewrite(path, lambda flat: flat.update({"a\n\x1b[2J": np.zeros(3, np.float32)}))
    with pytest.raises(DataError, match=r"a\\n.* is unknown") as raised:
        load_model(path)
    assert str(raised.value).isprintable()


def test_names_in_the_file_are_the_paths_of_the_tree(folder):
    path, params = folder
    assert set(load_file(path / "model.safetensors")) == set(traverse_util.flatten_dict(params, sep="/"))
