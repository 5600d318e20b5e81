"""`harvest plan`: what it prints and what it refuses."""

import json

import pytest

from harvest_jax import cli


@pytest.fixture
def no_gpu_compiler(monkeypatch):
    monkeypatch.setattr("harvest_jax.plan.topology.compiler_is_here", lambda: False)


def run_command(capsys, *arguments):
    code = cli.main(["plan", "--config", "base", *arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_the_command_for_virtual_devices(tiny_folder, capsys):
    fields = [f"--config.{field}" for field in (f"model.init_from={tiny_folder}", "model.num_frames=3")]
    fields += [f"--config.{field}" for field in ("text.length=8", "train.batch_size=16", "model.dtype=float32")]
    fields += ["--config.train.mlm_weight=0", "--config.model.decoder_layers=0", "--config.train.unmasked_steps=1"]
    fields += ["--config.train.lr_multipliers=(('logit_scale', 1.0), ('.*', 0.0))"]  # no backward pass: compiles soon
    code, out, _ = run_command(capsys, "--topology", "cpu:8", "--json", *fields)
    assert code == 0
    found = json.loads(out.splitlines()[-1])
    assert (found["devices"], found["fits"], found["method"]) == (8, None, "compiled")
    assert found["per_device_bytes"] == found["memory"]["peak"] > found["memory"]["arguments"] > 0
    assert found["all_patches"]["flops"] > found["flops"] > 0
    assert {"kind", "count", "bytes", "group"} <= set(found["collectives"][0])
    assert found["estimate"] is None


@pytest.mark.usefixtures("no_gpu_compiler")
def test_the_command_for_gpus(tiny_folder, capsys):
    fields = [f"--config.{field}" for field in (f"model.init_from={tiny_folder}", "text.length=8")]
    code, out, _ = run_command(
        capsys, "--topology", "h200:8", "--json", "--search", *fields, "--config.train.batch_size=131072"
    )
    assert code == 0
    found = json.loads(out.splitlines()[-1])
    assert (found["devices"], found["fits"], found["method"]) == (8, True, "analytic")
    assert found["calibration"] == "not calibrated"
    best = found["largest_batch"]
    assert best["batch"] >= 131072
    assert best["tried"][str(best["batch"])] is True
    assert not all(best["tried"].values())
    code, out, err = run_command(capsys, "--topology", "a100:1", *fields, "--config.train.batch_size=131072")
    assert code == 2
    assert "DOES NOT FIT" in out
    assert "GiB too much: try " in err
    assert err.count("\n") == 1


@pytest.mark.usefixtures("no_gpu_compiler")
def test_a_measured_step_scales_the_model(tmp_path, capsys):
    fields = ["model.size=demo", "text.length=8", "train.batch_size=16384"]
    arguments = ["--topology", "h200:1", "--json", *(f"--config.{field}" for field in fields)]
    plain = json.loads(run_command(capsys, *arguments)[1])
    assert plain["estimate"]["bound_by"] in ("compute", "memory")
    result = {
        "device": "NVIDIA H200",
        "devices": 1,
        "step_ms_unblocked": 3 * plain["estimate"]["step_ms"],
        "peak_bytes": plain["per_device_bytes"] // 2,
        "config": "base",
        "overrides": fields,
    }
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(result))
    scaled = json.loads(run_command(capsys, *arguments, "--measured", str(path))[1])
    assert scaled["estimate"]["step_ms"] == pytest.approx(3 * plain["estimate"]["step_ms"], rel=1e-3)
    assert scaled["per_device_bytes"] == pytest.approx(plain["per_device_bytes"] / 2, rel=1e-6)
    path.write_text(json.dumps(result | {"device": "NVIDIA A100-SXM4-80GB"}))
    code, _, err = run_command(capsys, *arguments, "--measured", str(path))
    assert (code, "not on NVIDIA H200 SXM" in err) == (2, True)
    path.write_text("{}")
    code, _, err = run_command(capsys, *arguments, "--measured", str(path))
    assert (code, "is not a result of `harvest bench step --json`" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology", "v5e"], "--topology v5e is not known"),
        (["--topology", "h200:12"], "--topology h200:12: more than 8 GPUs must be whole machines of 8"),
        (["--topology", "cpu:8", "--search"], "--search needs devices of known memory"),
        (["--topology", "cpu:8", "--measured", "x"], "--measured scales plans for GPUs"),
        (["--topology", "h200:8", "--measured", "gone"], "--measured gone is not a result"),
        (["--topology", "h200:8", "--config.train.batch_size=12"], "cannot be divided over 8 devices"),
        (["--topology", "h200:8", "--config.mesh.fsdp=3"], "the 8 devices"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    code, out, err = run_command(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_gpu_compiler_that_does_not_work_is_one_line(monkeypatch, capsys):
    """As with the plugin but without NVIDIA's libraries, or of another version of JAX."""
    monkeypatch.setattr("harvest_jax.plan.topology.compiler_is_here", lambda: True)

    def missing(**description):
        assert description["topology"] == "1x1x8"
        assert "major: 9 minor: 0" in description["target_config"]
        raise RuntimeError("cuda is not among the platforms\nsecond line")

    monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", missing)
    code, out, err = run_command(capsys, "--topology", "h200:8")
    assert (code, out) == (2, "")
    assert "h200:8: JAX's CUDA plugin says: cuda is not among" in err


@pytest.mark.usefixtures("no_gpu_compiler")
def test_a_step_that_is_too_short_is_not_estimated(capsys):
    arguments = ["--topology", "h200:8", "--config.model.size=demo", "--config.train.batch_size=64"]
    code, out, _ = run_command(capsys, *arguments)
    assert code == 0
    assert "clips/s" not in out
    assert "under a millisecond, too short to estimate: plan a larger batch or model" in out
    code, out, _ = run_command(capsys, *arguments, "--json")
    assert json.loads(out)["estimate"] is None
    assert json.loads(out)["fits"] is True
