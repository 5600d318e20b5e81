"""`config.keep_ratio`: a result of its own, with embeddings of its own."""

import pytest

import harvest_jax
from data_pipeline.decode import pool
from harvest_jax import cli
from tests.helpers.colour_evaluation import COLOURS, CONFIGS, DecoderInThisProcess, captioned, evaluate, manifest
from tests.helpers.model_folders import save_random_model


def test_a_share_of_the_patches_is_another_protocol_and_other_embeddings(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "VideoDecoder", DecoderInThisProcess)
    model = harvest_jax.load(save_random_model(tmp_path / "model"))
    monkeypatch.setattr(harvest_jax, "load", lambda folder: model)
    words = [*manifest(videos, tmp_path, captioned(*COLOURS)), "--store", str(tmp_path / "store")]

    def run(*more):
        result = evaluate("retrieval", [*words, *more], tmp_path)
        (forward,) = (facts for name, facts in result["run"]["store"].items() if name.startswith("forward"))
        return result, forward["computed"]

    whole, computed = run("--config.seed=1")
    assert ("keep_ratio" in whole["protocol"], computed) == (False, 4)
    half, computed = run("--config.keep_ratio=0.5")
    assert (half["protocol"]["keep_ratio"], half["protocol"]["patches_drawn_by_seed"], computed) == (0.5, 0, 4)
    other, computed = run("--config.keep_ratio=0.5", "--config.seed=1")
    assert computed == 4
    again, computed = run("--config.keep_ratio=0.5")
    assert (computed, again["protocol_hash"], again["metrics"]) == (0, half["protocol_hash"], half["metrics"])
    same, computed = run()  # without dropped patches the seed decides nothing
    assert (computed, same["protocol_hash"]) == (0, whole["protocol_hash"])
    assert len({one["protocol_hash"] for one in (whole, half, other)}) == 3


@pytest.mark.parametrize("ratio", ["0", "1.1"])
def test_a_share_that_is_none_is_refused(ratio, tmp_path, capsys):
    words = ["--model", "m", "--config", str(CONFIGS / "retrieval.py"), f"--config.data.manifest={tmp_path}/m.jsonl"]
    assert cli.main(["eval", *words, f"--config.keep_ratio={ratio}"]) == 2
    assert f"keep_ratio={float(ratio)}" in capsys.readouterr().err
