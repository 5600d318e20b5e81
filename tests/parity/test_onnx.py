"""ONNX files, run by the lines of docs/onnx.md in a process that has neither this package nor JAX."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import harvest_jax
from harvest_jax.model.config import DecoderConfig, HarvestConfig, Preprocessing, TextConfig, VideoConfig
from tests.helpers.model_folders import save_random_model
from tests.helpers.other_towers import TOWERS, save_other_model

pytestmark = pytest.mark.parity

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "onnx.md"
CAPTIONS = ["a red heart grows", "blue", "x y z " * 9, ""]
MODELS = {"video": (4, "quick_gelu", np.float32), "image": (1, "gelu", np.float16)}

PROCESS = """
import os, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("harvest_jax", "data_pipeline", "jax", "onnx", "torch"):
            raise ImportError(f"{name} may not be imported here")
sys.meta_path.insert(0, Refuse())
import numpy
for folder in sys.argv[1:]:
    os.chdir(folder)
    inputs = numpy.load("inputs.npz")
    names = {"clips": inputs["clips"], "ids": inputs["ids"]}
    exec(inputs["lines"].item(), names)
    one = names["encode_video"](names["clips"][:1])
    numpy.savez("outputs.npz", video=names["encode_video"](names["clips"]), one=one,
                text=names["encode_text"](names["ids"]), scores=names["scores"])
"""


def model_folder(folder, num_frames, activation, dtype):
    config = HarvestConfig(
        name="tiny",
        video=VideoConfig(16, 8, num_frames, width=16, layers=5, heads=2, embed_dim=8, activation=activation),
        text=TextConfig(600, 12, width=16, layers=5, heads=2, embed_dim=8, activation=activation),  # 5: a real scan
        decoder=DecoderConfig(1, 16, 2, 16, 600) if num_frames > 1 else None,
        preprocessing=Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), resize="squash"),
    )
    return save_random_model(folder, config, dtype=dtype)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """(model, folder, outputs of the other process) by kind of model."""
    from harvest_jax.weights.onnx_export import export_onnx

    top = tmp_path_factory.mktemp("onnx")
    [lines] = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    models = {}
    for kind, parts in MODELS.items():
        models[kind] = harvest_jax.load(model_folder(top / kind / "model", *parts))
        export_onnx(top / kind / "model", top / kind / "programs")
        clips = np.random.default_rng(0).integers(0, 256, (3, parts[0], 16, 16, 3), dtype=np.uint8)
        np.savez(top / kind / "inputs.npz", clips=clips, ids=models[kind].tokenizer(CAPTIONS, 12), lines=lines)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, "-I", "-c", PROCESS, *[str(top / kind) for kind in MODELS]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {kind: (models[kind], top / kind, np.load(top / kind / "outputs.npz")) for kind in MODELS}


@pytest.mark.parametrize("kind", MODELS)
def test_it_runs_without_this_package_and_gives_the_same_numbers(results, kind):
    model, folder, found = results[kind]
    clips = np.load(folder / "inputs.npz")["clips"]
    video, text = model.encode_clips(clips), model.encode_text(CAPTIONS)
    assert found["video"].dtype == found["text"].dtype == np.float32
    np.testing.assert_allclose(found["video"], video, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["one"], video[:1], rtol=0, atol=1e-5)  # another batch
    np.testing.assert_allclose(found["text"], text, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["scores"], video @ text.T, rtol=0, atol=2e-5)
    assert np.abs(video[0] - video[1]).max() > 1e-3


def test_the_signature_and_the_tokenizer_lie_beside_it(results):
    _, folder, _ = results["video"]
    signature = json.loads((folder / "programs" / "signature.json").read_text())
    assert signature["functions"]["encode_video"]["input"] == {"dtype": "uint8", "shape": ["b", 4, 16, 16, 3]}
    assert signature["functions"]["encode_text"]["output"] == {"dtype": "float32", "shape": ["b", 8]}
    assert (signature["opset"], signature["weights"]) == (18, "float32")
    assert signature["frames"]["resize"] == "squash"
    assert signature["tokens"] == {"vocabulary": 600, "start": 598, "end": 599, "padding": 0}
    assert len(json.loads((folder / "programs" / "vocab.json").read_text())) == 600
    tokenizer = json.loads((folder / "programs" / "tokenizer_config.json").read_text())
    assert tokenizer["model_max_length"] == 12


def test_int8_is_smaller_and_close_and_large_weights_go_beside_the_file(tmp_path, monkeypatch):
    import onnxruntime

    from harvest_jax.weights import onnx_export, onnx_graph

    monkeypatch.setattr(onnx_graph, "QUANTISED", 64)
    folder = model_folder(tmp_path / "model", *MODELS["video"])
    onnx_export.export_onnx(folder, tmp_path / "whole")
    onnx_export.export_onnx(folder, tmp_path / "int8", int8=True)
    monkeypatch.setattr(onnx_export, "ONE_FILE", 1000)
    onnx_export.export_onnx(folder, tmp_path / "beside")
    assert (tmp_path / "beside" / "encode_video.onnx.data").is_file()
    clips = np.random.default_rng(0).integers(0, 256, (3, 4, 16, 16, 3), dtype=np.uint8)
    found = {}
    for name in ("whole", "int8", "beside"):
        session = onnxruntime.InferenceSession(tmp_path / name / "encode_video.onnx")
        found[name] = session.run(None, {"clips": clips})[0]
    np.testing.assert_array_equal(found["beside"], found["whole"])
    assert 0.98 < (found["int8"] * found["whole"]).sum(axis=1).min() < 1 - 1e-7
    sizes = [(tmp_path / name / "encode_text.onnx").stat().st_size for name in ("int8", "whole")]
    assert sizes[0] < 0.6 * sizes[1]


@pytest.mark.parametrize("kind", TOWERS)
def test_towers_that_are_no_clips(kind, tmp_path, measured):
    """SigLIP's, whose tokenizer goes along, and those with rotary positions."""
    import onnxruntime

    from harvest_jax.weights.export_model import export_model

    model = harvest_jax.load(save_other_model(tmp_path / "model", kind))
    assert export_model(tmp_path / "model", "onnx", tmp_path / "programs")["left_out"] == []
    clips = np.random.default_rng(0).integers(0, 256, (3, 2, 12, 12, 3), dtype=np.uint8)
    texts = ["a dog", "dogs", ""]
    for name, argument, wanted in (
        ("encode_video", clips, model.encode_clips(clips)),
        ("encode_text", model.tokenizer(texts, 10), model.encode_text(texts)),
    ):
        session = onnxruntime.InferenceSession(tmp_path / "programs" / f"{name}.onnx")
        [called] = [one.name for one in session.get_inputs()]
        difference = float(np.abs(session.run(None, {called: argument})[0] - wanted).max())
        measured(f"small {kind}", name, "onnxruntime", difference, 1e-5)
    names = {path.name for path in (tmp_path / "programs").iterdir()}
    assert ("tokenizer.json" in names, "vocab.json" in names) == (kind == "SigLIP", kind != "SigLIP")
    signature = json.loads((tmp_path / "programs" / "signature.json").read_text())
    assert ("logit_bias" in signature) == (kind == "SigLIP")


def test_the_opset_is_the_signatures_and_a_runtime_that_is_older_says_so(results, tmp_path):
    import onnx
    import onnxruntime

    _, folder, _ = results["video"]
    signature = json.loads((folder / "programs" / "signature.json").read_text())
    for name in ("encode_video", "encode_text"):
        model = onnx.load(folder / "programs" / f"{name}.onnx")
        assert [one.version for one in model.opset_import] == [signature["opset"]]
        assert model.ir_version == signature["ir_version"]
    model.opset_import[0].version = onnx.defs.onnx_opset_version() + 100  # of a program later than any runtime here
    onnx.save(model, tmp_path / "later.onnx")
    with pytest.raises(Exception, match=r"[Oo]pset \d+ is under development"):
        onnxruntime.InferenceSession(tmp_path / "later.onnx")


def test_what_has_no_translation_is_named():
    import jax
    from jax import export

    from harvest_jax.weights.onnx_graph import onnx_model

    argument = jax.ShapeDtypeStruct(export.symbolic_shape("b, 3"), np.float32)
    with pytest.raises(NotImplementedError, match=r"cumsum with .* is not translated to ONNX"):
        onnx_model(lambda params, x: x.cumsum(axis=1), {}, argument, ("x", "y"), False)
