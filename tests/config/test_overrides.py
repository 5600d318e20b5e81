"""`--config.FIELD=VALUE` and the names of config files, as the command takes them: what fails is one line."""

import subprocess
import sys

import pytest

from harvest_jax import cli
from harvest_jax.config.files import load_dict
from harvest_jax.config.run import load
from harvest_jax.errors import ConfigError
from harvest_jax.evaluate import evaluation


def one_line(capsys, *words):
    assert cli.main(words) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    return output.err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.weights=3", "data.weights: expected a list, got 3 (write (3,))"),
        ("train.lr_multipliers=5", "train.lr_multipliers: expected a list, got 5"),
        ("train.lr_multipliers=(1, 2)", "train.lr_multipliers: expected a list, got 1"),
        ("train.steps=1e6", "train.steps: expected a whole number, got '1e6' (write 1000000)"),
        ("train.steps=1.5", "train.steps: expected a whole number, got '1.5'\n"),
        ("data.flip=maybe", "data.flip: expected True or False, got 'maybe'"),
        ("train.learning_rate=fast", "train.learning_rate: expected a number, got 'fast'"),
        (
            "model.size=B16",
            "model.size='B16' must be one of demo, world, B/32, B/16, L/14, L/14@336, H/14 (did you mean B/16?)",
        ),
        ("data.weights={[]: 1}", "data.weights: expected a list"),
        ("data.weights=" + "(" * 1000, "data.weights: expected a list"),
        ("data.weights=" + "-" * 20_000 + "1", "data.weights: expected a list"),
        ("data.weights=(1" + "0" * 400 + ",)", "is too large"),
        ("train.steps=" + "9" * 5000, "train.steps: expected a whole number"),
        ("train.accumulate=1" + "0" * 400, "is outside 1..10000000"),
        ("mesh.data=1" + "0" * 30, "mesh.data="),
        ("train.lr_multipliers=(('a{99999999999}', 1),)", "is not a regular expression"),
        ("data.flip=\x1b[31mred", r"got '\x1b[31mred'"),
        ("train=3", "train is a group of fields: set one of them, such as train."),
        ("train.stpes=3", "unknown field train.stpes (did you mean train.steps?)"),
    ],
    ids=lambda text: text[:24],
)
def test_a_wrong_override_is_one_short_line(override, message, capsys, tmp_path):
    said = one_line(
        capsys, "train", "--config", "base", "--workdir", str(tmp_path), "--validate_only", f"--config.{override}"
    )
    assert message in said
    assert len(said) < 400
    assert said.isascii()
    assert said[:-1].isprintable()


def test_a_regular_expression_brings_no_warning(recwarn):
    run = load("base", [r"train.lr_multipliers=(('text/\d', 0), ('.*', 1))"])
    assert run.train.lr_multipliers[0] == (r"text/\d", 0.0)
    assert not list(recwarn)


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("['a {}', 'video of {}']", ("a {}", "video of {}")),
        ("('a {}',)", ("a {}",)),
        ("a {}", "a {}"),
        ("action_16", "action_16"),
    ],
)
def test_prompts_may_be_one_text_or_a_list(text, prompts):
    config = load_dict("eval/zero_shot", ["data.manifest=x.csv", f"prompts={text}"], "evaluation")
    assert evaluation.check(config).prompts == prompts


def test_hyphens_are_underscores():
    assert load("base", ["train.batch-size=64"]).train.batch_size == 64


@pytest.mark.parametrize("name", ["demo", "demo.py", "configs/demo.py", "./configs/demo.py"])
def test_packaged_configs_are_found_from_every_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load(name).model.size == "demo"
    assert load_dict("sweeps/keep_ratio:harvest_b16").model.size == "B/16"
    assert load_dict("configs/eval/retrieval.py").task == "retrieval"


def test_a_file_of_the_current_folder_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo.py").write_text(
        "from configs import base\ndef get_config():\n c = base.get_config()\n c.train.steps = 7\n return c"
    )
    assert load("configs/demo.py").train.steps == 7
    assert load("demo").train.steps == 1200


def test_a_wrong_name_gets_the_nearest_one(tmp_path, capsys):
    words = ("train", "--workdir", str(tmp_path), "--config")
    assert "no config file harvest_b61 (did you mean harvest_b16?)" in one_line(capsys, *words, "harvest_b61")
    assert "the packaged configs are base, demo, eval/" in one_line(capsys, *words, str(tmp_path / "x.py"))


def test_a_config_of_the_other_kind_is_named_with_its_command(tmp_path, capsys):
    said = one_line(capsys, "train", "--config", "eval/retrieval", "--workdir", str(tmp_path), "--config.data.root=x")
    assert said == (
        "harvest train: eval/retrieval is an evaluation config: harvest eval --config eval/retrieval --model DIR\n"
    )
    said = one_line(capsys, "eval", "--config", "demo", "--model", str(tmp_path), "--config.data.manifest=x.csv")
    assert said == "harvest eval: demo is a training config: harvest train --config demo --workdir DIR\n"


@pytest.mark.parametrize(
    ("made", "content", "said"),
    [
        ("checkpoints/", "", "is a folder, not a config file: it is a training folder; to go on training, give the"),
        ("config.json", '{"model": {}}', "it is a model folder; name it by --config.model.init_from"),
        (
            "config.json",
            '{"model_type": "clip"}',
            "not a config file: `harvest weights import` makes a model folder",
        ),
        ("config.json", "[", "is a folder, not a config file: `harvest weights import`"),
        ("dataset_info.json", "{}", "it is a folder of shards; name it by --config.data.shards"),
    ],
)
def test_a_folder_given_as_a_config_is_recognised(made, content, said, tmp_path, capsys):
    path = tmp_path / made
    if made.endswith("/"):
        path.mkdir()
    else:
        path.write_text(content)
    words = {"train": ["--workdir", "w"], "eval": ["--model", "m"], "plan": ["--topology", "h200:8"], "bench": ["step"]}
    for command, others in words.items():
        assert said in one_line(capsys, command, *others, "--config", str(tmp_path))


def test_a_config_that_fails_and_a_frozen_one(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from configs import base\ndef get_config():\n return base.get_config().modle.size")
    with pytest.raises(ConfigError, match=r"get_config\(\) fails: AttributeError"):
        load(str(file))
    file.write_text(
        "import ml_collections\nfrom configs import base\n"
        "def get_config(): return ml_collections.FrozenConfigDict(base.get_config())"
    )
    assert load(str(file), ["train.steps=5"]).train.steps == 5


def test_an_override_without_a_value_says_how_to_write_it():
    script = "import sys; from harvest_jax.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["train", "--config", "base", "--workdir", "w", "--config.train.steps", "5"]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert "write --config.train.steps=VALUE" in done.stderr
