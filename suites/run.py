"""The command that runs measurements: python -m suites.run --estimator relax --task width."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeFloat, PositiveInt, restricted_number_type

import results
from suites.commands import asked, command, listing, planned, saved, setting_list, source, tables
from suites.commands.command import Command

REFERENCE = Path(results.__file__).parent / "reference" / "rows"
Part = restricted_number_type("a fraction of the MACs, in (0, 1]", float, [(">", 0), ("<=", 1)])

ESTIMATOR = (
    'one or more estimators, with options in brackets: "relax[hidden=32]"; or "all"; or baselines of the accuracy '
    'suite: plain, random, "uniform[of=NAME]", "scratch[of=NAME]"'
)
DESCRIPTION = """\
Each cell is one suite, task, estimator and seed. Results are written as rows,
figures and a report. Finished cells are not run again: repeat a command to see
its results, or to resume it after an interruption.

examples:
  python -m suites.run --estimator relax --task width
  python -m suites.run --estimator rloo "concrete[temperature=0.5]" --task toy width --suite bias variance
  python -m suites.run --compare rloo concrete --task width --suite accuracy --seeds 5
  python -m suites.run --estimator rloo --task width --dataset cifar10 --data-root data --preset cpu --suite accuracy
  python -m suites.run --estimator rloo random "uniform[of=rloo]" "scratch[of=rloo]" --task width --suite accuracy
  python -m suites.run --estimator rloo concrete "rebar[coupled=true]" --task width --suite scaling
  python -m suites.run --estimator all --task toy --dry-run
"""


def arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    several: dict[str, Any] = {"nargs": "+", "default": [], "metavar": "NAME"}
    tasks, suites = listing.names("tasks"), source.suites()
    parser.add_argument("--estimator", **several, help=ESTIMATOR)
    parser.add_argument("--task", **several, help=f"one or more of {', '.join(tasks)}")
    parser.add_argument(
        "--suite", **several, help=f"one or more of {', '.join(suites)}; by default all that need not be named (--list)"
    )
    parser.add_argument("--preset", default="quick", help=f"one of {', '.join(listing.names('presets'))}")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="change settings of the preset, e.g. train.epochs=2; replaces the settings of an earlier --config",
    )
    parser.add_argument(
        "--target-macs",
        type=Part,
        metavar="R",
        help="target for q's expected MACs, as a fraction of the full network's; replaces the penalty",
    )
    parser.add_argument("--dataset", help=f"one of {', '.join(listing.names('datasets'))}; by default the preset's")
    parser.add_argument(
        "--data-root", type=Path | None, help="folder of the data sets; by default $VMO_DATA, else data"
    )
    parser.add_argument(
        "--seeds",
        type=command.Seeds,
        metavar="N",
        help="number of seeds, for suites that repeat; by default the preset's",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--out", default="results/runs", metavar="DIR", help="folder for everything that is written")
    parser.add_argument(
        "--checkpoint-seconds",
        type=NonNegativeFloat,
        default=60.0,
        metavar="S",
        help="least time between two checkpoints of a run",
    )
    parser.add_argument("--workers", type=PositiveInt, default=1, metavar="N", help="number of processes")
    parser.add_argument(
        "--launcher",
        default="local",
        choices=("local", "ray"),
        help="local: this machine; ray: the Ray cluster at RAY_ADDRESS or on this machine, with OMP_NUM_THREADS (or 1) "
        "CPUs per cell",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the cells, their status and an estimate of the time; run nothing"
    )
    parser.add_argument(
        "--overwrite", default="never", choices=command.OVERWRITE, help="which finished cells to run again"
    )
    parser.add_argument(
        "--list",
        nargs="?",
        const="all",
        choices=listing.KINDS,
        metavar="WHAT",
        help=f"list what is available: {', '.join(listing.KINDS)}",
    )
    parser.add_argument(
        "--compare", nargs=2, metavar=("A", "B"), help="run two estimators and print their paired difference"
    )
    command.talk(parser)
    parser.add_argument(
        "-h", "--help", action="store_true", help="show this help, and every setting with its value at --preset"
    )


def run(args: Namespace) -> int:
    """Run the command. Returns the exit status: 0, or 1 if a cell failed with an error."""
    if args.help:
        tables.say(COMMAND.parser().format_help())
        tables.say(setting_list.text(asked.preset(args)))
        return 0
    if args.list is not None:
        return _list(args)
    if not (args.estimator or args.compare) or not args.task:
        raise ValueError("--estimator and --task are needed (--list shows their names, --help explains)")
    return _measure(args)


def _list(args: Namespace) -> int:
    if args.list == "settings":
        preset = asked.preset(args)
        if args.json:
            tables.say_json({"preset": preset.name, "settings": setting_list.listed(preset)})
        else:
            tables.say(setting_list.text(preset))
    elif args.json:
        tables.say_json(listing.listed(args.list))
    else:
        listing.show(args.list)
    return 0


def _measure(args: Namespace) -> int:
    import torch

    from results import report, table
    from suites import labels
    from suites.commands import final
    from suites.engine.cell import Workshop
    from suites.engine.plan import plan, prepare
    from suites.engine.progress import Progress
    from suites.engine.schedule import sweep

    chosen = asked.labels(args)
    preset, suites = asked.preset(args), asked.suites(args)
    context, executor = asked.place(args)
    out = Path(args.out)
    rows = out / "rows"
    if not args.dry_run:
        asked.check_writable(out)
    with Progress(command.level(args)) as progress:
        shop = Workshop(replace(context, progress=progress.detail), out, args.checkpoint_seconds)
        found = plan(shop, preset, args.task, chosen, suites, rows, seeds=args.seeds, overwrite=args.overwrite)
        if not found:
            names = ", ".join(map(str, chosen))
            raise ValueError(f"nothing to run: {', '.join(suites)} does not apply to {names} on {', '.join(args.task)}")
        asked.notice_unused(args, preset, found)
        if args.dry_run:
            known = table.read(rows, REFERENCE)
            if args.json:
                tables.say_json(planned.listed(found, known))
            else:
                planned.show(found, known)
            return 0
        asked.check_possible(found)
        prepare(shop, found, torch.device("cpu") if args.launcher == "ray" else None)
        config = saved.save(COMMAND.parser(), args, preset, out / "commands")
        failures = sum(item.kept == "error" for item in found)
        progress.begin(found)
        for done in sweep(found, shop, rows, executor):
            failures += done.status == "error"
            progress.finished(done)
    written = report.build([rows, REFERENCE], out)
    places = {"rows": rows, "figures": out / "figures", "report": written, "config": config}
    pair = [str(labels.parse(name)) for name in args.compare] if args.compare else None
    if args.json:
        sweeps = {"cells": final.listed(found, rows), **{key: str(place) for key, place in places.items()}}
        own = table.read(rows)
        own = own[own["hash"].isin({item.cell.hash for item in found})]
        paired = {} if pair is None else {"compared": final.compared(own, pair)}
        tables.say_json(sweeps | paired)
    else:
        final.show(found, rows, REFERENCE, pair)
        for name, place in places.items():
            tables.say(f"{name:8s} {place}")
    return 1 if failures else 0


def _both(*kinds: str) -> Any:
    return lambda: [name for kind in kinds for name in listing.names(kind)]


COMMAND = Command(
    "run",
    "Measure gradient estimators on the tasks of variational model optimisation.",
    arguments,
    run,
    DESCRIPTION,
    names={
        "estimator": _both("estimators", "baselines"),
        "compare": _both("estimators"),
        "task": _both("tasks"),
        "suite": _both("suites"),
        "preset": _both("presets"),
        "dataset": _both("datasets"),
    },
    own_help=True,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0, 1 if a cell failed with an error, 2 for a wrong command."""
    return COMMAND.main(argv, "python -m suites.run")


if __name__ == "__main__":
    sys.exit(main())
