"""The words of a command line as every command and launcher takes them."""

import subprocess
from pathlib import Path

import pytest

from harvest_jax.arguments import HelpFormatter, Parser
from launch import local, sweep

LAUNCH = Path(local.__file__).parent


def nested():
    parser = Parser(prog="tool")
    parser.add_argument("--version", action="store_true")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--batch_size", type=int)
    run.add_argument("--rate", type=float)
    run.add_argument("rest", nargs="*")
    return parser


def refused(parser, words, capsys):
    with pytest.raises(SystemExit) as done:
        parser.parse_args(words)
    assert done.value.code == 2
    return capsys.readouterr().err


def test_hyphens_are_underscores_with_and_without_an_equals_sign():
    for words in (["run", "--batch-size", "3"], ["run", "--batch-size=3"], ["run", "--batch_size=3"]):
        assert nested().parse_args(words).batch_size == 3


def test_words_after_two_hyphens_are_left_alone():
    assert nested().parse_args(["run", "--", "--any-thing"]).rest == ["--any-thing"]
    assert nested().parse_args(["run", "--rate", "-1.5"]).rate == -1.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["run", "--bacth_size", "3"],
            "tool run: error: unrecognized arguments: --bacth_size (did you mean --batch_",
        ),
        (["rnu"], "unknown command rnu (did you mean run?)"),
        (["xyz"], "unknown command xyz (choose from run)"),
        (["run", "--batch_size", "1e6"], "--batch_size: expected a whole number, got '1e6'"),
        (["run", "--rate", "fast"], "--rate: expected a number, got 'fast'"),
        (["run", "--\x1b[31m"], "unrecognized arguments: --\\x1b[31m"),
        ([], "positional arguments"),
    ],
)
def test_mistakes(words, said, capsys):
    assert said in refused(nested(), words, capsys)


@pytest.mark.parametrize("flag", ["--dry_run", "--dry-run"])
def test_the_scripts_take_hyphens_and_underscores(flag):
    words = ["--config", "demo", "--workdir", "runs/x"]
    slurm = subprocess.run(["bash", LAUNCH / "slurm.sbatch", flag, *words], capture_output=True, text=True, check=True)
    assert "train --config demo --workdir runs/x" in slurm.stdout
    tpu = ["bash", LAUNCH / "tpu_vm.sh", "--name", "n", "--zone", "z", "--steps", "train", flag, "--", *words]
    done = subprocess.run(tpu, capture_output=True, text=True, check=True)
    assert "gcloud compute tpus" in done.stdout


def test_the_launchers_take_words_in_the_same_way(tmp_path, capsys):
    assert local.build_parser().parse_args(["--dry-run", "--", "--config", "x"]).arguments == ["--config", "x"]
    assert "did you mean --processes?" in refused(local.build_parser(), ["--proceses", "2"], capsys)
    words = ["--config", "sweeps/keep_ratio", "--workdir-root", str(tmp_path), "--dry-run", "--config.data.shards=x"]
    assert sweep.main(words) == 0
    assert capsys.readouterr().out.count("to do") == 5
    with pytest.raises(SystemExit):
        sweep.main([*words, "--config.seed"])
    assert "write --config.seed=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_paragraphs_of_a_help_fill_the_terminal_and_commands_stay_as_they_are(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    command = "  harvest tool --option a-long-value --other another-long-value   # what it does"
    prose = "A sentence of many short and ordinary words that is broken where the terminal ends.\nAnd another."
    parser = Parser(prog="tool", epilog=f"{prose}\n{command}\n\nLast.", formatter_class=HelpFormatter)
    lines = parser.format_help().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("A sentence"))
    end = lines.index(command)
    assert " ".join(lines[start:end]) == prose.replace("\n", " ")
    assert max(map(len, lines[start:end])) <= columns - 2  # argparse's own margin
    assert lines[end + 1 :] == ["", "Last."]
