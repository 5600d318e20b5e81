"""The command as a user meets it."""

import subprocess
import sys

import pytest

from harvest_jax import cli
from harvest_jax.version import __version__


def test_help_names_every_command_and_imports_no_model_code():
    script = (
        "import sys; from harvest_jax.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('jax', 'av', 'tensorflow', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for name in cli.COMMANDS:
        assert f"\n    {name} " in done.stdout
    assert done.stdout.strip().endswith("[]")


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main([command, "--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert f"harvest {command}" in text
    assert "--debug" in text
    assert max(map(len, text.splitlines())) <= 140


def test_the_help_of_training_names_the_files_that_it_writes(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in ("metrics.jsonl", "tensorboard/", "harvest_jax[tensorboard]", "export/"))


def test_version(capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out == f"harvest_jax {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "\n    train  "),
        (["bench"], "\n    loader  "),
        (["dance"], "unknown command dance (choose from demo, world, clips, shards, "),
        (["trian"], "unknown command trian (did you mean train?)"),
        (["weights", "improt", "x"], "unknown command improt (did you mean import?)"),
        (["demo"], "--workdir"),
        (["demo", "--workdir", "x", "--setps", "3"], "unrecognized arguments: --setps (did you mean --steps?)"),
        (["train", "--validate-olny"], "unrecognized arguments: --validate-olny (did you mean --validate_only?)"),
        (["search", "--topp", "3", "words"], "unrecognized arguments: --topp (did you mean --top?)"),
        (["search", "--modle=x", "words"], "unrecognized arguments: --modle (did you mean --model?)"),
        (["train", "--conifg.seed=3"], "unrecognized arguments: --conifg.seed (did you mean --config.seed?)"),
        (["eval", "-model", "x"], "unrecognized arguments: -model (did you mean --model?)"),
        (["inspect", "x", "--config.a"], "--config.a has no value: write --config.a=VALUE"),
        (["inspect", "x", "--config.a=1"], "harvest inspect takes no --config.a=1"),
    ],
)
def test_wrong_words_end_with_two(arguments, message, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(arguments)
    assert done.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--validate-only", "--validate_only"])
def test_hyphens_in_flags_are_underscores(flag, tmp_path, capsys):
    words = ["train", "--config", "base", "--workdir", str(tmp_path), flag, "--config.data.shards=" + str(tmp_path)]
    assert cli.main(words) in (2, 3)  # understood: what is wrong is the folder
    assert "usage" not in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_a_commands_arguments_need_no_slow_import(command):
    script = (
        "import sys; from harvest_jax.cli import build_parser\n"
        f"build_parser({command!r})\n"
        "print([name for name in ('jax', 'numpy', 'av', 'pyarrow', 'ml_collections') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_mistakes_are_one_line_and_debug_shows_more(tmp_path, capsys):
    missing = str(tmp_path / "gone")
    assert cli.main(["inspect", missing]) == 3
    assert capsys.readouterr().err == f"harvest inspect: no file or folder {missing}\n"
    assert cli.main(["inspect", missing, "--debug"]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_stops_is_no_fault():
    """As in `harvest eval --list | head -1`."""
    command = f"{sys.executable} -m harvest_jax eval --list | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (141, "", "")
