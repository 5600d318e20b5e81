"""Addresses of object stores and servers where a file or folder is expected: every command refuses them in one line."""

import pytest

import harvest_jax
from harvest_jax import cli
from harvest_jax.errors import DataError
from harvest_jax.files import address_fault
from launch import local, sweep

BUCKET = "gs://bucket/x"
COMMANDS = {
    "train": ["train", "--config", "demo", "--workdir", BUCKET],
    "train, one word": ["train", "--config", "demo", f"--workdir={BUCKET}"],
    "train, fork": ["train", "--fork", BUCKET, "--workdir", "new"],
    "train, shards": ["train", "--config", "demo", "--workdir", "new", f"--config.data.shards={BUCKET}"],
    "train, one of two": ["train", "--config", "demo", "--workdir", "new", f"--config.data.shards=a,{BUCKET}"],
    "train, start": ["train", "--config", "demo", "--workdir", "new", f"--config.model.init_from={BUCKET}"],
    "train, evaluation": [
        *("train", "--config", "demo", "--workdir", "new", "--config.eval.every=1"),
        f"--config.eval.config=eval/retrieval --config.data.shards={BUCKET}",
    ],
    "shards, manifest": ["shards", "--manifest", BUCKET, "--out", "new"],
    "shards, out": ["shards", "--manifest", "clips.csv", "--out", BUCKET],
    "inspect": ["inspect", BUCKET],
    "weights import": ["weights", "import", BUCKET, "--out", "new"],
    "weights export": ["weights", "export", "model", "--format", "hf", "--out", BUCKET],
    "weights mix": ["weights", "mix", "a", BUCKET, "--out", "new"],
    "eval, model": ["eval", "--config", "eval/retrieval", "--model", BUCKET],
    "eval, data": ["eval", "--config", "eval/retrieval", "--model", "m", f"--config.data.manifest={BUCKET}"],
    "eval, out": ["eval", "--config", "eval/retrieval", "--model", "m", "--out", BUCKET],
    "results": ["results", BUCKET],
    "search, model": ["search", "--model", BUCKET, "--videos", "v", "a dog"],
    "search, videos": ["search", "--model", "m", "--videos", BUCKET, "a dog"],
    "search, index": ["search", "--model", "m", "--videos", "v", "--index", BUCKET, "a dog"],
    "demo": ["demo", "--workdir", BUCKET],
    "world": ["world", "--out", BUCKET],
    "plan": ["plan", "--config", "demo", "--topology", "v5e:2x2", f"--config.model.init_from={BUCKET}"],
    "bench": ["bench", "loader", "--shards", BUCKET],
}


def ended(call, *arguments):
    """The exit code, returned or raised."""
    try:
        return call(*arguments)
    except SystemExit as done:
        return done.code


@pytest.mark.parametrize("case", COMMANDS)
def test_every_command_refuses_an_address(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert ended(cli.main, COMMANDS[case]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert f"{BUCKET} is an address, and only files and folders of this machine are supported" in said.err
    assert not list(tmp_path.iterdir())  # no folder "gs:"


@pytest.mark.parametrize("words", [[local.main, "--script", BUCKET], [sweep.main, "--config", BUCKET]])
def test_launchers_refuse_an_address(words, tmp_path, monkeypatch, capsys):
    program, *arguments = words
    monkeypatch.chdir(tmp_path)
    assert ended(program, arguments) == 2
    assert f"{BUCKET} is an address" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_address_of_the_hub_gets_the_command_that_takes_it(capsys):
    assert ended(cli.main, ["eval", "--config", "eval/retrieval", "--model", "hf://lab/clip@v1"]) == 2
    assert "`harvest weights import hf://lab/clip@v1 --out D` makes a model folder" in capsys.readouterr().err


def test_python_refuses_an_address():
    with pytest.raises(DataError, match=f"{BUCKET} is an address"):
        harvest_jax.load(BUCKET)


def test_what_follows_two_hyphens_is_for_another_program(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--runner", "dask", "--", "--dask_client_address=tcp://h:1", f"--temp_location={BUCKET}"]
    assert ended(cli.main, ["shards", "--manifest", "gone.csv", "--out", "new", *words]) != 0
    assert "is an address" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["s3://b/x", "S3://b", "gs:/b/x", "https://h/x", "file:///x", "['a', 'hf://x']", "a, s3://b"]
)
def test_addresses_are_recognised(text):
    assert address_fault(text)


@pytest.mark.parametrize("text", ["runs/a", "/data/gs/x", "a:b", "gs", "C://x", "motion: up", "w@4", "Q: {question}"])
def test_names_of_files_and_words_are_none(text):
    assert address_fault(text) is None
