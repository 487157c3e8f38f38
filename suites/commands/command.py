"""A command: its options, what it runs, and how its errors are reported."""

from __future__ import annotations

import difflib
import os
import re
import sys
from argparse import ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import Literal

from jsonargparse import ActionConfigFile, ArgumentParser, DefaultHelpFormatter, Namespace
from jsonargparse.typing import restricted_number_type

DISTRIBUTION = "vmo-gradient-bench"
PROGRAM = "vmo-bench"
WORDS = {
    "PositiveInt": "an integer of at least 1",
    "NonNegativeInt": "an integer of at least 0",
    "NonNegativeFloat": "a number of at least 0",
    "PositiveFloat": "a number above 0",
}
"""Descriptions of the library's types, for messages."""
OVERWRITE = ("never", "failed", "always")
Seeds = restricted_number_type("a number of seeds, 1 … 1000", int, [(">=", 1), ("<=", 1000)])


class _Formatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Appends types and defaults to the help of each option; leaves the description unwrapped."""


@dataclass(frozen=True, eq=False)
class Command:
    """A command.

    Attributes:
        name: the subcommand's name.
        summary: one line of help.
        arguments: adds its options to a parser.
        run: runs it and returns the exit status; raises ValueError or OSError with a message of one line.
        description: further lines of help.
        names: for completion, the possible values of options and arguments, by their name in the namespace.
        own_help: whether it handles `--help` itself.
    """

    name: str
    summary: str
    arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]
    description: str = ""
    names: Mapping[str, Callable[[], Sequence[str]]] = field(default_factory=dict)
    own_help: bool = False

    def parser(self, prog: str | None = None) -> ArgumentParser:
        """The parser of the command. It raises instead of exiting."""
        made = ArgumentParser(
            prog=prog or f"{PROGRAM} {self.name}",
            description=f"{self.summary}\n\n{self.description}".strip(),
            formatter_class=_Formatter,
            exit_on_error=False,
            allow_abbrev=False,
            add_help=not self.own_help,
            version=version(),
        )
        made.add_argument(
            "--config", action=ActionConfigFile, metavar="FILE", help="read options from a YAML or JSON file"
        )
        self.arguments(made)
        return made

    def main(self, argv: Sequence[str] | None, prog: str) -> int:
        """Run it as a program of its own. Returns the exit status; an error is one line and status 2."""
        parser = self.parser(prog)
        words = sys.argv[1:] if argv is None else list(argv)

        def do() -> int:
            refuse_repeated(words, parser)
            return self.run(parser.parse_args(words))

        return told(do, options(parser))


def version() -> str:
    """The version of the installed distribution."""
    try:
        return version_of(DISTRIBUTION)
    except PackageNotFoundError:  # a checkout that is not installed
        return "unknown"


def options(parser: ArgumentParser) -> list[str]:
    """The names of a parser's options, as typed."""
    return [f"--{name.replace('_', '-')}" for name in parser.get_defaults().keys()]  # noqa: SIM118  a namespace


def refuse_repeated(words: Sequence[str], parser: ArgumentParser) -> None:
    """Refuse a list option that is given twice: the parser would drop the values of the first.

    Raises:
        ValueError: such an option.
    """
    for action in parser._actions:
        several = action.nargs in ("+", "*") or (isinstance(action.nargs, int) and action.nargs > 1)
        for option in action.option_strings if several else ():
            if sum(word.partition("=")[0] == option for word in words) > 1:
                raise ValueError(f"{option} is given twice; write all of its values after one {option}")


def told(run: Callable[[], int], known: Sequence[str] = ()) -> int:
    """Run a command and return its exit status. An error is one line on standard error and status 2."""
    try:
        return run()
    except ArgumentError as error:
        print(f"error: {_clear(str(error), known)}", file=sys.stderr)
    except BrokenPipeError:  # the reader of the output has stopped, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, ArithmeticError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; finished cells are kept; repeat the command to resume", file=sys.stderr)
        return 130
    return 2


def notice(text: str, args: Namespace) -> None:
    """One line on standard error, unless `--quiet`."""
    if not args.quiet:
        print(f"note: {text}", file=sys.stderr)


def talk(parser: ArgumentParser) -> None:
    """Add `--quiet`, `--verbose` and `--json`."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quiet", action="store_true", help="print no progress and no notices")
    how.add_argument("--verbose", action="store_true", help="print a line for every step of the progress")
    as_json(parser)


def as_json(parser: ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print only JSON on standard output")


def level(args: Namespace) -> Literal["quiet", "normal", "verbose"]:
    """How much progress to print."""
    return "quiet" if args.quiet else "verbose" if args.verbose else "normal"


def _clear(message: str, known: Sequence[str]) -> str:
    """An error of the parser as one line in terms of the command line. Suggests the nearest option or subcommand."""
    text = " ".join(message.split())
    if found := re.fullmatch(r'Parser key "([^"]+)": (.*)', text):
        text = f"--{found[1].replace('_', '-')}: {found[2]}"
    if found := re.fullmatch(r"(--\S+): Not of type (.+?): (.*)", text):
        quoted = re.findall(r"'([^']*)'", found[3])
        got = quoted[-1] if quoted else found[3].partition(" ")[0]
        text = f"{found[1]} must be {WORDS.get(found[2], found[2])}, got {got}"
    if found := re.search(r"required: (.*)", text):
        text = text.replace(found[1], re.sub(r"\b\w+\.", "", found[1]))
    if found := re.search(r"unrecognized arguments: (--[^\s=]+)|invalid choice: '([^']*)'", text):
        choices = re.findall(r"'([^']*)'", text.partition("choose from")[2]) or known
        near = difflib.get_close_matches(found[1] or found[2], choices, n=1)
        text += f", did you mean {near[0]}?" if near else ""
    return text
