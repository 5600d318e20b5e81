"""The border of the configuration: overrides, types, ranges, and messages that name the field."""

import pytest

from harvest_jax.config import files as config_files
from harvest_jax.config import run as run_config
from harvest_jax.errors import ConfigError

BASE = str(config_files.config_file("base.py"))


def test_every_config_in_the_repository_is_sound():
    for name in ("base.py", "demo.py", "harvest_b16.py", "harvest_l14.py"):
        assert run_config.load(str(config_files.config_file(name))).train.steps > 0


def test_overrides_keep_the_fields_type():
    run = run_config.load(
        BASE, ["train.learning_rate=1", "train.steps=7", "data.flip=true", "model.size=L/14", "seed=3"]
    )
    assert (run.train.learning_rate, run.train.steps, run.data.flip, run.model.size, run.seed) == (
        1.0,
        7,
        True,
        "L/14",
        3,
    )
    run = run_config.load(BASE, ["train.lr_multipliers=(('text/.*', 0), ('.*', 0.5))"])
    assert run.train.lr_multipliers == (("text/.*", 0.0), (".*", 0.5))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.learning_rat=1", "unknown field train.learning_rat .did you mean train.learning_rate"),
        ("trian.steps=1", r"unknown field trian.steps .did you mean train.steps\?"),
        ("train.learning_rate=nan", "learning_rate=nan is outside"),
        ("model.keep_ratio=0", "model.keep_ratio=0.0 is outside"),
        ("model.drop_scope=cube", "model.drop_scope='cube' must be one of clip, frame, tube"),
        ("train.lr_multipliers=((1, 2, 3),)", "train.lr_multipliers: expected 2 values"),
        ("train.lr_multipliers=(('(', 1),)", "'.' is not a regular expression"),
        ("model.decoder_layers=0", "builds no decoder"),
        ("train.keep_every=1500", "train.keep_every=1500 is not a multiple of train.save_every=1000"),
        ("train.steps", "must read FIELD=VALUE"),
    ],
)
def test_faults_are_named(override, message):
    with pytest.raises(ConfigError, match=message):
        run_config.load(BASE, [override])


def test_all_faults_come_in_one_message():
    with pytest.raises(ConfigError) as caught:
        run_config.load(BASE, ["model.keep_ratio=2", "text.mask_ratio=-1", "train.batch_size=0"])
    for name in ("model.keep_ratio", "text.mask_ratio", "train.batch_size"):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "has no get_config"),
        ("def get_config(): return {}", "must return an ml_collections.ConfigDict"),
        ("def get_config(:", "SyntaxError"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        (
            "from configs import base\ndef get_config():\n c = base.get_config()\n c.model.sze = 'B/16'\n return c",
            "sze",
        ),
        (
            "from configs import base\ndef get_config():\n c = base.get_config()\n c.train = 3\n return c",
            "Could not override field 'train'",
        ),
        (
            "from configs import base\ndef get_config():\n c = base.get_config()\n del c.seed\n return c",
            "missing field seed",
        ),
    ],
)
def test_broken_config_files_are_one_line(tmp_path, text, message):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ConfigError, match=message):
        run_config.load(str(tmp_path / "mine.py"))


def test_a_config_takes_an_argument_and_a_missing_file_is_named(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from configs import base\ndef get_config(size):\n c = base.get_config()\n c.model.size = size\n return c"
    )
    assert run_config.load(f"{tmp_path}/mine.py:L/14").model.size == "L/14"
    with pytest.raises(ConfigError, match="get_config"):
        run_config.load(f"{tmp_path}/mine.py")
    with pytest.raises(ConfigError, match=r"no config file nowhere\.py"):
        run_config.load("nowhere.py")
