"""``python -m suites.report``: figures and REPORT.md from the rows of finished cells. Needs no torch."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the report and return the exit status: 2, after one line, when there is nothing to report on."""
    parser = argparse.ArgumentParser(prog="python -m suites.report", description="Draw and tabulate finished cells.")
    parser.add_argument(
        "--rows",
        nargs="+",
        type=Path,
        default=[Path("results/runs/rows")],
        metavar="DIR",
        help="directories of rows; of a cell in several, the first counts (default: results/runs/rows)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results/runs"),
        metavar="DIR",
        help="where REPORT.md and figures/ go (default: results/runs)",
    )
    options = parser.parse_args(arguments)
    from results import report  # seaborn takes two seconds, which --help need not wait for

    try:
        print(report.build(options.rows, options.out))
    except (OSError, ValueError) as error:
        print(f"suites.report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
