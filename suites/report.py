"""The command that reports: figures and REPORT.md, or one page of HTML, from rows of finished cells. Needs no torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from suites.commands import command, listing, tables
from suites.commands.command import Command

FILTERS = {"task": "tasks", "suite": "suites", "estimator": "estimators", "preset": "presets", "dataset": "datasets"}


def arguments(parser: ArgumentParser) -> None:
    """Its options."""
    parser.add_argument(
        "--rows", nargs="+", default=["results/runs/rows"], metavar="DIR",
        help="directories of rows; if a cell is in several, the first counts",
    )  # fmt: skip
    parser.add_argument("--out", default="results/runs", metavar="DIR", help="directory for the report")
    parser.add_argument(
        "--html", action="store_true", help="write one page to open in a browser, explorer.html, in place of the report"
    )
    for name in FILTERS:
        parser.add_argument(f"--{name}", nargs="+", default=[], metavar="NAME", help=f"only rows of these {name}s")
    command.as_json(parser)


def run(args: Namespace) -> int:
    """Build the report. Returns the exit status."""
    from results import explorer, report  # seaborn takes two seconds, which --help need not wait for

    only = {name: args[name] for name in FILTERS if args[name]}
    out = Path(args.out)
    if args.html:
        page = str(explorer.build(args.rows, out, only=only))
        tables.say_json({"page": page}) if args.json else tables.say(page)
        return 0
    written = report.build(args.rows, out, **({"only": only} if only else {}))
    if args.json:
        tables.say_json({"report": str(written), "figures": str(out / "figures")})
    else:
        tables.say(str(written))
    return 0


COMMAND = Command(
    "report",
    "Draw and tabulate finished cells, from their rows alone.",
    arguments,
    run,
    names={name: partial(listing.names, kind) for name, kind in FILTERS.items()},
)


def main(argv: Sequence[str] | None = None) -> int:
    """Build the report and return the exit status: 2, after one line, when there is nothing to report on."""
    return COMMAND.main(argv, "python -m suites.report")


if __name__ == "__main__":
    sys.exit(main())
