"""A model card holds what the folder and its results say, and says what they do not."""

import json

import pytest

import harvest_jax
from harvest_jax.errors import DataError
from harvest_jax.hub.model_card import model_card, own_results
from tests.helpers import written_results
from tests.helpers.model_folders import save_random_model


def with_origin(folder, origin):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"origin": origin}))
    return folder


@pytest.fixture
def trained(tmp_path):
    """The export of a training that began from a model of the hub."""
    hub = {"repo": "lab/clip", "commit": "1" * 40, "license": "mit"}
    start = save_random_model(tmp_path / "start")
    with_origin(start, {"imported_from": "hf://lab/clip@1", "family": "OpenAI CLIP", "kind": "pt", "hub": hub})
    run = {
        "model": {"init_from": str(start), "keep_ratio": 0.1},
        "data": {"shards": "/mnt/of_mine/clips"},
        "train": {"batch_size": 64, "learning_rate": 1e-4},
        "objective": {"name": "post_pretraining"},
        "seed": 3,
    }
    return with_origin(save_random_model(tmp_path / "run" / "export"), {"workdir_step": 40, "config": run})


def test_training_starting_weights_and_results_of_this_very_model(trained, tmp_path, monkeypatch):
    (tmp_path / "run" / "results").mkdir()
    monkeypatch.setitem(written_results.WEIGHTS, "a", harvest_jax.load(trained).digest)
    for model in "ab":  # b is another one
        written_results.write_choice(tmp_path / "run" / "results" / f"{model}.json", [1, 1, 0, 1], ["turns"] * 4, model)
    found = own_results(trained, [])
    assert [result.path.name for result in found.results] == ["a.json"]
    assert "1 results of other models were left out" in found.left_out
    card = model_card(trained, found, "mine")
    for line in (
        "# mine",
        "| steps | 40 |",
        "| share of patches kept | 0.1 |",
        "| shards (names of folders) | `clips` |",
        "- the training began from the model folder `start`",
        f"  - repository `lab/clip`, commit `{'1' * 40}`",
        "  - licence, as that repository states it: mit",
        f"- multiple_choice, kites: `{found.results[0].protocol_hash}`",
        "- the licence of these weights",
        'license: "unknown"',
        'base_model: "lab/clip"',
    ):
        assert f"{line}\n" in card, line
    assert "75" in card  # 3 of 4
    assert "of_mine" not in card


def test_what_the_folder_says_that_the_training_began_from(trained, tmp_path):
    with_origin(tmp_path / "start", {"made_by": "harvest_jax.demo.image_clip", "seed": 0})
    (tmp_path / "start" / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: en\n---\n\nlicense: mit\n")
    card = model_card(trained, own_results(trained, []), "mine", repo="me/mine")
    assert "  - it says that it was made by `harvest_jax.demo.image_clip`\n" in card
    assert "  - licence, as its README.md states it: apache-2.0\n" in card
    assert "harvest weights import hf://me/mine --out model\n" in card


def test_what_is_not_there_is_unknown(trained, tmp_path):
    (tmp_path / "start" / "config.json").unlink()
    card = model_card(trained, own_results(trained, []), "mine", "apache-2.0")
    assert "- the licence of the first of them: unknown" in card
    assert "None: no result of `harvest eval`" in card
    assert card.startswith('---\nlicense: "apache-2.0"\n')
    mixed = with_origin(trained, {"mixed": {"first": "a`b\n", "second": "c", "alpha": 0.25}})
    assert "0.75 times `a'b\\n` plus 0.25 times `c`" in model_card(mixed, own_results(mixed, []), "mine")
    for origin in ({"mixed": 3}, {"config": []}, {"imported_from": "x", "hub": {}}, {"config": {"model": 7}}):
        with pytest.raises(DataError, match="its origin is not one that this package writes"):
            model_card(with_origin(trained, origin), own_results(trained, []), "mine")
