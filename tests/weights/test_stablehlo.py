"""Programs written by `export_stablehlo`, run by the lines of docs/stablehlo.md without this package."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export
from safetensors.numpy import load_file, save_file

import harvest_jax
from harvest_jax.errors import ConfigError, DataError, HarvestError
from harvest_jax.model.config import DecoderConfig, HarvestConfig, Preprocessing, TextConfig, VideoConfig
from harvest_jax.model.harvest import Harvest
from harvest_jax.weights.export_model import export_model
from harvest_jax.weights.folder import save_model
from harvest_jax.weights.stablehlo import export_stablehlo
from tests.helpers.model_folders import without_digest
from tests.helpers.other_towers import TOWERS, save_other_model

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "stablehlo.md"
TEXT = TextConfig(vocab_size=600, context_length=12, width=16, layers=5, heads=2, embed_dim=8)  # 5: a real scan
GREY = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), resize="squash")

CAPTIONS = ["a red heart grows", "blue", "x y z " * 9, ""]
SHORT = [1, 3]  # of these, what is short enough to be cut

# Run by another process: what may not be imported is refused first, then the document's lines, in each folder.
PROCESS = """
import os, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("harvest_jax", "data_pipeline", "flax", "optax", "orbax", "jaxtyping", "PIL"):
            raise ImportError(f"{name} may not be imported here")
sys.meta_path.insert(0, Refuse())
import numpy
for folder in sys.argv[1:]:
    os.chdir(folder)
    inputs = numpy.load("inputs.npz")
    names = {"clips": inputs["clips"], "ids": inputs["ids"]}
    exec(inputs["lines"].item(), names)
    short = names["encode_text"](inputs["short"])
    results = {"video": names["encode_video"](names["clips"]), "text": names["encode_text"](names["ids"])}
    numpy.savez("outputs.npz", **results, scores=names["scores"], short=short)
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"harvest_jax", "data_pipeline", "flax", "torch"}, loaded
"""


def tiny(num_frames: int, activation: str, dtype: type, folder: Path) -> Path:
    """A model folder with random weights."""
    config = HarvestConfig(
        name="tiny",
        video=VideoConfig(16, 8, num_frames, width=16, layers=5, heads=2, embed_dim=8, activation=activation),
        text=TextConfig(**vars(TEXT) | {"activation": activation}),
        decoder=DecoderConfig(1, 16, 2, 16, 600) if num_frames > 1 else None,
        preprocessing=GREY,
    )
    rng = np.random.default_rng(num_frames)
    shapes = jax.eval_shape(Harvest(config).init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)
    save_model(folder, config, params, {}, dtype)
    return folder


MODELS = {"video": (4, "quick_gelu", np.float32), "image": (1, "gelu", np.float16)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Model folders and their programs, in folders where the document's lines look for them."""
    top = tmp_path_factory.mktemp("programs")
    for kind, parts in MODELS.items():
        export_stablehlo(tiny(*parts, top / kind / "model"), top / kind / "programs")
    return top


@pytest.fixture(scope="module")
def results(folders):
    """(model, clips, outputs of the other process) by kind of model."""
    [lines] = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    models, clips = {}, {}
    for kind in MODELS:
        models[kind] = harvest_jax.load(folders / kind / "model")
        clips[kind] = np.random.default_rng(0).integers(0, 256, (3, 4, 16, 16, 3), dtype=np.uint8)
        ids = models[kind].tokenizer(CAPTIONS, 12)
        np.savez(folders / kind / "inputs.npz", clips=clips[kind], ids=ids, short=ids[SHORT, :7], lines=lines)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, "-I", "-c", PROCESS, *[str(folders / kind) for kind in MODELS]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {kind: (models[kind], clips[kind], np.load(folders / kind / "outputs.npz")) for kind in MODELS}


@pytest.mark.parametrize("kind", MODELS)
def test_it_runs_again_without_this_package(results, kind):
    model, clips, found = results[kind]
    video, text = model.encode_clips(clips), model.encode_text(CAPTIONS)
    assert found["video"].dtype == found["text"].dtype == np.float32
    np.testing.assert_allclose(found["video"], video, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["text"], text, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["scores"], video @ text.T, rtol=0, atol=2e-6)
    np.testing.assert_allclose(found["short"], text[SHORT], rtol=0, atol=1e-6)  # what follows the end changes nothing
    assert np.abs(video[0] - video[1]).max() > 1e-3  # they are not all one vector


@pytest.mark.parametrize("kind", MODELS)
def test_the_programs_are_for_every_platform_and_any_batch(folders, kind):
    programs, num_frames = folders / kind / "programs", MODELS[kind][0]
    frames = "4" if num_frames > 1 else "t"
    for name, shape in (("encode_video", f"(b, {frames}, 16, 16, 3)"), ("encode_text", "(b, l)")):
        program = export.deserialize(bytearray((programs / f"{name}.stablehlo").read_bytes()))
        assert program.platforms == ("cpu", "cuda", "tpu")
        *weights, argument = program.in_avals
        assert str(argument.shape).replace("'", "") == shape
        assert len(program.module_kept_var_idx) == len(program.in_avals)  # the document says which arguments there are
        stored = load_file(programs / f"{name}.safetensors")
        assert [aval.shape for aval in weights] == [stored[path].shape for path in sorted(stored)]
        assert (programs / f"{name}.stablehlo").stat().st_size < 100_000  # no weights in it
        text = program.mlir_module()
        assert "precision = [HIGHEST, HIGHEST]" in text
        assert "precision = [DEFAULT, DEFAULT]" not in text


@pytest.mark.parametrize("kind", MODELS)
def test_the_signature_says_how_to_call_them(folders, kind):
    programs, (num_frames, _, dtype) = folders / kind / "programs", MODELS[kind]
    signature = json.loads((programs / "signature.json").read_text(encoding="utf-8"))
    files = {part[key] for part in signature["functions"].values() for key in ("program", "weights")}
    assert sorted(os.listdir(programs)) == sorted([*files, "signature.json"])
    assert signature["functions"]["encode_video"]["input"] == {
        "dtype": "uint8",
        "shape": ["b", 4 if num_frames > 1 else "t", 16, 16, 3],
    }
    assert signature["functions"]["encode_text"]["input"] == {
        "dtype": "int32",
        "shape": ["b", "l"],
        "constraints": ["l <= 12"],
    }
    for part in signature["functions"].values():
        assert part["output"] == {"dtype": "float32", "shape": ["b", 8]}
        assert {leaf.dtype for leaf in load_file(programs / part["weights"]).values()} == {np.dtype(dtype)}
    assert signature["frames"]["resize"] == "squash"
    assert signature["frames"]["normalised_inside"] == {"mean": list(GREY.mean), "std": list(GREY.std)}
    assert signature["tokens"] == {"vocabulary": 600, "start": 598, "end": 599, "padding": 0}
    assert signature["logit_scale"] == pytest.approx(
        np.exp(load_file(folders / kind / "model" / "model.safetensors")["logit_scale"])
    )
    assert signature["platforms"] == ["cpu", "cuda", "tpu"]
    assert HarvestConfig.from_dict(signature["model"]).video.num_frames == num_frames


@pytest.mark.parametrize("kind", MODELS)
def test_a_fixed_batch_gives_the_same_numbers_from_fixed_shapes(folders, results, tmp_path, kind):
    model, clips, _ = results[kind]
    frames = 4 if kind == "video" else 8
    export_stablehlo(folders / kind / "model", tmp_path / "programs", batch=3)
    clips = np.concatenate([clips, clips[:, ::-1]], axis=1)[:, :frames]
    ids = model.tokenizer(CAPTIONS[:3], 12)
    signature = json.loads((tmp_path / "programs" / "signature.json").read_text(encoding="utf-8"))
    for name, argument, wanted in (
        ("encode_video", clips, model.encode_clips(clips)),
        ("encode_text", ids, model.encode_text(CAPTIONS[:3])),
    ):
        program = export.deserialize(bytearray((tmp_path / "programs" / f"{name}.stablehlo").read_bytes()))
        assert signature["functions"][name]["input"] == {"dtype": str(argument.dtype), "shape": list(argument.shape)}
        assert program.in_avals[-1].shape == argument.shape
        weights = load_file(tmp_path / "programs" / f"{name}.safetensors")
        np.testing.assert_allclose(program.call(weights, argument), wanted, rtol=0, atol=1e-6)
        shapes = re.findall(r"stablehlo\.transpose .*-> tensor<([\dx]+)x\w+>", program.mlir_module())
        assert shapes
        assert max(shape.count("x") + 1 for shape in shapes) <= 6  # what some runtimes take at most
        assert "?" not in program.mlir_module()


@pytest.mark.parametrize("kind", TOWERS)
def test_towers_that_are_no_clips(kind, tmp_path):
    """SigLIP's, whose texts have one length and whose tokenizer goes along, and those with rotary positions."""
    model = harvest_jax.load(save_other_model(tmp_path / "model", kind))
    done = export_model(tmp_path / "model", "stablehlo", tmp_path / "programs")
    assert done["left_out"] == []
    clips = np.random.default_rng(0).integers(0, 256, (2, 2, 12, 12, 3), dtype=np.uint8)
    texts = ["a dog", "dogs"]
    for name, argument, wanted in (
        ("encode_video", clips, model.encode_clips(clips)),
        ("encode_text", model.tokenizer(texts, 10), model.encode_text(texts)),
    ):
        program = export.deserialize(bytearray((tmp_path / "programs" / f"{name}.stablehlo").read_bytes()))
        weights = load_file(tmp_path / "programs" / f"{name}.safetensors")
        np.testing.assert_allclose(program.call(weights, argument), wanted, rtol=0, atol=1e-6)
    signature = json.loads((tmp_path / "programs" / "signature.json").read_text(encoding="utf-8"))
    assert HarvestConfig.from_dict(signature["model"]) == model.config
    own = kind == "SigLIP"
    assert signature["functions"]["encode_text"]["input"]["shape"] == ["b", 10 if own else "l"]
    assert ("file" in signature["tokens"], (tmp_path / "programs" / "tokenizer.json").is_file()) == (own, own)
    bias = load_file(tmp_path / "model" / "model.safetensors").get("logit_bias")
    assert signature.get("logit_bias") == (pytest.approx(float(bias)) if own else None)


def test_bfloat16_weights_are_written_as_float32(tmp_path):
    folder = tiny(4, "quick_gelu", jax.numpy.bfloat16, tmp_path / "model")
    export_stablehlo(folder, tmp_path / "new" / "programs")
    for name in ("encode_video", "encode_text"):
        stored = load_file(tmp_path / "new" / "programs" / f"{name}.safetensors")
        assert {leaf.dtype for leaf in stored.values()} == {np.dtype(np.float32)}


def test_mistakes_leave_nothing_behind(tmp_path):
    folder = tiny(4, "quick_gelu", np.float32, tmp_path / "model")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="taken exists already: remove it, or give another path"):
        export_stablehlo(folder, taken)
    with pytest.raises(ConfigError, match="batch=0: must be 1 or more"):
        export_stablehlo(folder, tmp_path / "out", batch=0)
    with pytest.raises(DataError, match="nothing does not exist"):
        export_stablehlo(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(HarvestError, match=r"out could not be written: (File exists|Not a directory)"):
        export_stablehlo(folder, taken / "mine.txt" / "out")
    flat = load_file(folder / "model.safetensors")
    spoilt = {"text/ln_final/scale": np.full(16, np.nan, np.float32)}
    save_file(flat | spoilt, without_digest(folder) / "model.safetensors")
    with pytest.raises(DataError, match="text/ln_final/scale cannot be written: it holds numbers that are not finite"):
        export_stablehlo(folder, tmp_path / "out")
    save_file(flat | {"logit_scale": np.asarray(1000, np.float32)}, folder / "model.safetensors")
    with pytest.raises(DataError, match="logit_scale is 1000, whose exponential is not finite"):
        export_stablehlo(folder, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["model", "taken"]
    assert os.listdir(taken) == ["mine.txt"]
