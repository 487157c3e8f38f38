"""The whole program: `vmo-bench COMMAND`, or `python -m suites COMMAND`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from suites import report, run, scripts
from suites.commands import command
from suites.commands.command import PROGRAM, Command

SHELLS = ("bash", "zsh", "tcsh")


def _completion_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="which shell")


def _completion(args: Namespace) -> int:
    import shtab

    parser, commands = _parser()
    for one, made in commands.items():
        for action in made._actions:
            if action.dest in one.names:
                action.choices = tuple(one.names[action.dest]())
    print(shtab.complete(parser, args.shell))
    return 0


COMPLETION = Command(
    "completion",
    "Print a completion script for a shell.",
    _completion_arguments,
    _completion,
    f'In bash: eval "$({PROGRAM} completion bash)"',
)
COMMANDS = (run.COMMAND, report.COMMAND, *scripts.COMMANDS, COMPLETION)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns its exit status; an error is one line on standard error and status 2."""
    parser, made = _parser()
    by_name = {one.name: one for one in COMMANDS}
    words = sys.argv[1:] if argv is None else list(argv)
    named = next((by_name[word] for word in words if word in by_name), None)
    known = command.options(made[named]) if named is not None else list(by_name)

    def do() -> int:
        if named is not None:
            command.refuse_repeated(words, made[named])
        args = parser.parse_args(words)
        return by_name[args.command].run(args[args.command])

    return command.told(do, known)


def _parser() -> tuple[ArgumentParser, dict[Command, ArgumentParser]]:
    parser = ArgumentParser(
        prog=PROGRAM,
        description="A benchmark of gradient estimators for learning the depth and width of a network.",
        exit_on_error=False,
        allow_abbrev=False,
        version=command.version(),
    )
    commands = parser.add_subcommands(dest="command")
    made = {}
    for one in COMMANDS:
        made[one] = one.parser()
        commands.add_subcommand(one.name, made[one], help=one.summary)
    return parser, made


if __name__ == "__main__":
    sys.exit(main())
