"""The parser of every command line: a wrong word gets the nearest right one, and hyphens count as underscores."""

import argparse
import difflib
import itertools
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from harvest_jax.files import address_fault
from harvest_jax.terminal import printable

LINE = 118  # characters of a paragraph on a wide terminal; longer lines are hard to read
_OPTION = re.compile(r"--.|-[A-Za-z]")


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Paragraphs of descriptions and epilogs fit the terminal's width; indented lines (commands, tables) stay."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        filled: list[str] = []
        for kept, group in itertools.groupby(text.strip("\n").split("\n"), lambda line: line[:1] in ("", " ")):
            lines = list(group)
            filled += lines if kept else textwrap.wrap(" ".join(lines), min(width, LINE), break_on_hyphens=False)
        return "".join(f"{indent}{line}\n" for line in filled)


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose mistakes end with exit code 2 and say what was meant."""

    addresses: tuple[str, ...] = ()  # how an address may begin; every other one is refused

    def __init__(self, **settings: Any) -> None:
        """Settings as of `argparse.ArgumentParser`, without abbreviations of options unless they are asked for."""
        super().__init__(**{"allow_abbrev": False} | settings)
        self.register("type", int, whole_number)
        self.register("type", float, number)
        self._commands: Any = None

    def add_subparsers(self, **settings: Any) -> Any:
        """As in `argparse`; the commands' parsers are of this class."""
        self._commands = super().add_subparsers(**settings)
        return self._commands

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As in `argparse`, but unknown options and commands are refused by the parser of their own command.

        A parser that has commands and gets no arguments prints its help and exits with code 2.
        """
        words = list(sys.argv[1:] if args is None else args)
        if self._commands is not None and not words:
            self.print_help(sys.stderr)
            self.exit(2)
        return super().parse_known_args(self._checked(words), namespace)

    def take_overrides(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
        """(the other words, FIELD=VALUE of every --config.FIELD=VALUE); one without a value ends with exit code 2."""
        overrides = [word.removeprefix("--config.") for word in words if word.startswith("--config.")]
        for override in overrides:
            if "=" not in override:
                self.error(f"--config.{printable(override)} has no value: write --config.{printable(override)}=VALUE")
        return [word for word in words if not word.startswith("--config.")], overrides

    def _checked(self, words: list[str]) -> list[str]:
        """The words with the options as they were declared; those of a command's own parser are left to it."""
        declared = {_canonical(name): name for name in self._option_string_actions}
        for place, word in enumerate(words):
            if word == "--":  # what follows is for another program, such as a runner of Beam
                break
            value = word.partition("=")[2] if _OPTION.match(word) else word
            fault = address_fault(value.partition(" ")[0])  # of a sentence to search for the first word alone
            if fault and not word.startswith(self.addresses):
                self.exit(2, f"{self.prog}: {printable(fault)}\n")
            if _OPTION.match(word):
                name, equals, value = word.partition("=")
                if _canonical(name) not in declared:
                    self._refuse("unrecognized arguments: ", name, self._option_string_actions)
                words[place] = declared[_canonical(name)] + equals + value
            elif self._commands is not None:
                if word not in self._commands.choices:
                    self._refuse("unknown command ", word, self._commands.choices)
                break
        return words

    def _refuse(self, what: str, word: str, known: Iterable[str]) -> NoReturn:
        name, dot, field = word.partition(".")  # --config.FIELD
        near = difflib.get_close_matches(_canonical(name), list(known), n=1)
        hint = f" (did you mean {near[0]}{dot}{field}?)" if near else ""
        if not near and what.startswith("unknown"):
            hint = f" (choose from {', '.join(known)})"
        self.error(f"{what}{printable(word)}{hint}")


def whole_number(text: str) -> int:
    """The value of an argument of type int."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {printable(text, 80)!r}") from None


def number(text: str) -> float:
    """The value of an argument of type float."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {printable(text, 80)!r}") from None


def _canonical(option: str) -> str:
    """The option with underscores for hyphens, but for those that it begins with."""
    name = option.lstrip("-")
    return option[: len(option) - len(name)] + name.replace("-", "_")
