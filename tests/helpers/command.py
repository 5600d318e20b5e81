"""The command `harvest` within the test's process."""

from harvest_jax import cli


def run(capsys, *arguments):
    """(exit code, what was printed, the one line of an error)."""
    code = cli.main([str(word) for word in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err
