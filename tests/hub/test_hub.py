"""Models to and from a stand-in of the hub: what arrives, and one line for each thing that goes wrong."""

import json
import os
import shutil

import pytest

from harvest_jax.demo.image_clip import SHIPPED
from harvest_jax.describe import describe_model
from harvest_jax.hub.transfers import HubAddress, wanted_files
from tests.helpers.command import run
from tests.helpers.hub_server import HubServer
from tests.helpers.model_folders import save_random_model

# huggingface_hub 2.4 uploads in a way that its own HTTP library calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
TOKEN = "hf_thisIsTheTokenOfATest"
REPO = "someone/small"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    server = HubServer()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its storage has a protocol of its own
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)  # between the library's attempts
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(SHIPPED, tmp_path / "export")
    (tmp_path / "export" / "README.md").unlink()
    return tmp_path / "export"


def test_a_model_goes_to_the_hub_and_comes_back_with_its_card_and_its_origin(hub, folder, tmp_path, capsys):
    code, out, _ = run(capsys, "weights", "push", folder, f"hf://{REPO}", "--license", "mit")
    assert code == 0
    assert "README.md, config.json, model.safetensors" in out
    assert TOKEN not in out
    [(commit, files)] = hub.repos[REPO]
    assert f"{hub.url}/{REPO}/commit/{commit}" in out
    for name in ("config.json", "model.safetensors"):
        assert files[name] == (folder / name).read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    card = files["README.md"].decode()
    assert card.startswith('---\nlicense: "mit"\n')
    assert describe_model(folder)["sha256"].split()[0] in card
    assert "None: no result of `harvest eval` with the digest of this model" in card
    assert "Random, or unknown" in card

    hub.cards[REPO] = {"license": "mit"}
    code, out, _ = run(capsys, "weights", "import", f"hf://{REPO}", "--out", tmp_path / "back")
    assert code == 0
    assert out.startswith(f"hf://{REPO}@{commit}: harvest_jax (model folder")
    origin = json.loads((tmp_path / "back" / "config.json").read_text())["origin"]
    assert origin["imported_from"] == f"hf://{REPO}@{commit}"
    assert origin["hub"] == {"repo": REPO, "commit": commit, "license": "mit"}
    assert origin["origin"]["made_by"] == "harvest_jax.demo.image_clip"
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == files["model.safetensors"]
    code, out, _ = run(capsys, "weights", "export", tmp_path / "back", "--format", "hf", "--out", tmp_path / "hf")
    assert code == 0
    card = (tmp_path / "hf" / "README.md").read_text()
    assert f'base_model: "{REPO}"' in card
    assert 'library_name: "transformers"' in card
    assert "licence, as that repository states it: mit" in card
    assert 'license: "unknown"' in card
    assert run(capsys, "weights", "push", tmp_path / "hf", "someone/hf")[0] == 0  # as it is
    pushed = hub.repos["someone/hf"][-1][1]
    assert pushed == {path.name: path.read_bytes() for path in (tmp_path / "hf").iterdir()}
    assert hub.tokens == {TOKEN}  # it was sent, and lies nowhere
    for parent, _, names in os.walk(tmp_path):
        for name in names:
            with open(os.path.join(parent, name), "rb") as file:
                assert TOKEN.encode() not in file.read(), name


def test_a_revision_is_one_commit_whatever_happens_meanwhile(hub, folder, tmp_path, capsys):
    files = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
    first = hub.commit(REPO, files)
    other = save_random_model(tmp_path / "other")

    def replace(path):  # while the first file is on its way
        hub.on_download = lambda path: None
        hub.commit(REPO, {name: (other / name).read_bytes() for name in files})

    hub.on_download = replace
    assert run(capsys, "weights", "import", f"hf://{REPO}", "--out", tmp_path / "new")[0] == 0
    assert len(hub.repos[REPO]) == 2
    assert (tmp_path / "new" / "model.safetensors").read_bytes() == files["model.safetensors"]
    again = run(capsys, "weights", "import", f"hf://{REPO}@{first}", "--out", tmp_path / "again")
    assert again[0] == 0
    assert (tmp_path / "again" / "config.json").read_text() == (tmp_path / "new" / "config.json").read_text()
    assert run(capsys, "weights", "import", f"hf://{REPO}", "--out", tmp_path / "main")[0] == 0
    assert (tmp_path / "main" / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


FAILURES = {
    401: (1, "refuses (401): there is no such repository, or it is not open to you"),
    403: (1, "refuses (403)"),
    404: (3, "has no such repository, revision or file (404)"),
    429: (1, "asks to wait (429, too many requests): the same command can be given again later"),
    500: (1, "answers with an error (500)"),
}


def failed(capsys, tmp_path, *words):
    """(exit code, what was said in one line without the token), with no folder left."""
    code, out, said = run(capsys, "weights", *words)
    assert out == ""
    assert said.count("\n") == 1
    assert said.startswith("harvest weights: ")
    assert TOKEN not in said
    assert not (tmp_path / "new").exists()
    return code, said


@pytest.mark.parametrize("status", FAILURES)
@pytest.mark.parametrize("place", ["/api/models/", "/resolve/"])
def test_a_hub_that_refuses_a_download(hub, folder, tmp_path, capsys, status, place):
    hub.commit(REPO, {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")})
    hub.fail[place] = status
    code, said = failed(capsys, tmp_path, "import", f"hf://{REPO}", "--out", tmp_path / "new")
    assert code == FAILURES[status][0]
    assert FAILURES[status][1] in said


@pytest.mark.parametrize("status", FAILURES)
@pytest.mark.parametrize("place", ["/api/repos/create", "/preupload/", "/commit/"])
def test_a_hub_that_refuses_an_upload(hub, folder, tmp_path, capsys, status, place):
    hub.fail[place] = status
    code, said = failed(capsys, tmp_path, "push", folder, REPO)
    assert code == FAILURES[status][0]
    assert FAILURES[status][1] in said
    assert not hub.repos.get(REPO)


def test_half_a_download_another_file_and_a_hub_that_is_away(hub, folder, tmp_path, capsys, monkeypatch):
    files = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
    hub.commit(REPO, files)
    words = ("import", f"hf://{REPO}", "--out", tmp_path / "new")
    hub.cut["model.safetensors"] = 5000
    code, said = failed(capsys, tmp_path, *words)
    assert (code, "the connection broke off" in said) == (1, True)
    hub.cut.clear()
    damaged = bytearray(files["model.safetensors"])
    damaged[-1] ^= 1
    hub.swapped["model.safetensors"] = bytes(damaged)
    code, said = failed(capsys, tmp_path, *words)
    assert (code, "is not what the hub lists for commit" in said) == (3, True)
    hub.swapped.clear()
    assert run(capsys, "weights", *words)[0] == 0  # what was damaged in the cache is fetched again
    shutil.rmtree(tmp_path / "new")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    code, said = failed(capsys, tmp_path, "import", f"hf://{REPO}@main", "--out", tmp_path / "new")
    assert (code, "cannot be reached" in said) == (1, True)


def test_one_checkpoint_of_several_and_words_that_are_no_address(hub, folder, tmp_path, capsys):
    weights = (folder / "model.safetensors").read_bytes()
    hub.commit(REPO, {"a.safetensors": weights, "b.safetensors": weights})
    into = ("--out", tmp_path / "new")
    code, said = failed(capsys, tmp_path, "import", f"hf://{REPO}", *into)
    assert (code, f"several: a.safetensors, b.safetensors; name one: hf://{REPO}/FILE" in said) == (3, True)
    code, said = failed(capsys, tmp_path, "import", f"hf://{REPO}/c.safetensors", *into)
    assert (code, "has no file c.safetensors" in said) == (3, True)
    code, said = failed(capsys, tmp_path, "import", f"hf://{REPO}/a.safetensors", *into)
    assert (code, "no sound config in its header" in said) == (3, True)  # it is read, as the file it is
    code, said = failed(capsys, tmp_path, "import", "hf://small", *into)
    assert (code, "is no address on the hub: write hf://ORGANISATION/NAME" in said) == (2, True)
    code, said = failed(capsys, tmp_path, "import", f"hf://{REPO}@gone", *into)
    assert (code, "no such repository, revision or file (404)" in said) == (3, True)
    assert run(capsys, "weights", "import", f"hf://{REPO}", "--out", "hf://x/y")[0] == 2


PARTS = "model-00001-of-00002.safetensors model-00002-of-00002.safetensors"
CHECKPOINTS = {
    "tf_model.h5 pytorch_model.bin config.json model.safetensors": "model.safetensors config.json",
    f"config.json {PARTS} x/{PARTS} model.safetensors.index.json": f"model.safetensors.index.json config.json {PARTS}",
    "config.json model.safetensors open_clip_config.json open_clip_pytorch_model.bin": (
        "open_clip_pytorch_model.bin open_clip_config.json config.json"
    ),
    "README.md ViCLIP.pth": "ViCLIP.pth",
}


@pytest.mark.parametrize(("names", "wanted"), CHECKPOINTS.items())
def test_the_files_of_one_checkpoint(names, wanted):
    assert wanted_files(sorted(set(names.split())), HubAddress(REPO)) == wanted.split()


def test_what_is_no_model_or_damaged_is_not_pushed(hub, folder, tmp_path, capsys):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    code, said = failed(capsys, tmp_path, "push", tmp_path / "run", REPO)
    assert (code, "is a training folder, not a model folder" in said) == (3, True)
    code, said = failed(capsys, tmp_path, "push", tmp_path / "gone", REPO)
    assert (code, "does not exist" in said) == (3, True)
    (folder / "README.md").write_text("mine")
    code, said = failed(capsys, tmp_path, "push", folder, REPO, "--license", "mit")
    assert (code, "are for a card that is made" in said) == (2, True)
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (folder / "model.safetensors").write_bytes(raw)
    code, said = failed(capsys, tmp_path, "push", folder, REPO)
    assert (code, "was altered or damaged" in said) == (3, True)
    assert hub.asked == []
