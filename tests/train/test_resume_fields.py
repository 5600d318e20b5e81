"""Which runs go on after an update: what every version wrote of its run still fits, field by field."""

import json
from pathlib import Path

import pytest

from harvest_jax.checkpoint.run_identity import check_identity, differences, flatten
from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.config.run import OLD_VALUES, load_recorded
from harvest_jax.errors import CheckpointError, ConfigError
from harvest_jax.train.resume_fields import identity

DATA = Path(__file__).resolve().parents[1] / "data"
# Identities of runs as checkpoints hold them, by name: kinds of runs that the kept workdirs do not show.
LATER = json.loads((DATA / "run_identities.json").read_text())


def of_0_1_0():
    return json.loads((DATA / "version_0_1_0/workdir/checkpoints/4/MANIFEST.json").read_text())["run_identity"]


def goes_on(tmp_path, stored):
    """The identity that the same run has today; its config is what the version wrote, so it lacks younger fields."""
    fields = {name: value for name, value in stored.items() if name != "data_digest"}
    fields["data"] = fields["data"] | {"shards": ",".join(map(str, fields["data"].get("weights", [])))}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    return identity(load_recorded(tmp_path / "config.json"), stored["data_digest"])


@pytest.mark.parametrize("name", ["0.1.0", *LATER])
def test_a_run_of_an_earlier_version_goes_on(tmp_path, name):
    """A new field that distinguishes runs needs its old value in OLD_VALUES, or older workdirs are refused."""
    stored = LATER[name] if name in LATER else of_0_1_0()
    check_identity(stored, goes_on(tmp_path, stored), Workdir(tmp_path))


def test_a_younger_field_is_compared_with_its_old_value(tmp_path):
    stored = of_0_1_0()
    assert "decay" not in stored["train"]
    changed = goes_on(tmp_path, stored)
    changed["train"]["decay"] = "linear"
    with pytest.raises(CheckpointError, match=r"train\.decay was 'cosine' and is 'linear' now"):
        check_identity(stored, changed, Workdir(tmp_path))


def test_a_field_without_a_stated_old_value_is_refused(tmp_path):
    stored = of_0_1_0()
    changed = goes_on(tmp_path, stored)
    changed["train"]["younger"] = 1
    assert differences(stored, changed) == {"train.younger": ("absent", 1)}


def test_a_recorded_config_can_be_used_without_its_launcher(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"distributed": True, "seed": 3}))
    found = load_recorded(tmp_path / "config.json")
    assert (found.seed, found.distributed) == (3, False)
    assert load_recorded(tmp_path / "config.json", ["distributed=true"]).distributed
    for damaged in ("{", "[1]", "1"):
        (tmp_path / "config.json").write_text(damaged)
        with pytest.raises(ConfigError, match="cannot be read as the config of a run"):
            load_recorded(tmp_path / "config.json")


def test_old_values_are_of_fields_that_exist(tmp_path):
    """A value of the wrong type or of a field that was renamed would never be equal."""
    today = flatten(goes_on(tmp_path, of_0_1_0()))
    assert {name: today[name] for name in OLD_VALUES} == OLD_VALUES
