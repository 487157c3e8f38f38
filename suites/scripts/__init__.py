"""Commands that are neither a suite nor the engine. Their options are here, and what they do is imported when done."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveFloat, PositiveInt, restricted_number_type

from suites.commands import command, listing
from suites.commands.command import Command
from vmo import export_arguments

Pairs = restricted_number_type("an integer of at least 2", int, (">=", 2))
EXPERIMENTS = ("bernoulli", "arm", "relax", "polynomial")


def _device(parser: ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to measure")


def _reproduce_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("experiment", nargs="*", metavar="NAME", help=f"some of {', '.join(EXPERIMENTS)}; or all")
    parser.add_argument("--seeds", type=PositiveInt, default=3, metavar="N", help="runs of each")
    command.as_json(parser)


def _reproduce(args: Namespace) -> int:
    from suites.scripts import reproduce

    return reproduce.run(args.experiment or EXPERIMENTS, args.seeds, args.json)


def _gpu_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--out", default="results/gpu", metavar="DIR", help="the folder of all that is written")
    parser.add_argument("--estimator", nargs="+", default=["all"], metavar="NAME", help="of the suites")


def _gpu(args: Namespace) -> int:
    from suites.scripts import gpu_check

    return gpu_check.run(Path(args.out), args.estimator)


def _projection_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("preset", nargs="*", metavar="PRESET", help="some presets; without any, cpu and paper")
    command.as_json(parser)


def _projection(args: Namespace) -> int:
    from suites.scripts import gpu_projection

    return gpu_projection.run(args.preset or ["cpu", "paper"], args.json)


def _loop_arguments(parser: ArgumentParser) -> None:
    for name, default, what in (
        ("depth", 16, "of the network"), ("widen", 1, "of the network"), ("images", 1280, "in an epoch"),
        ("batch", 128, "images in a minibatch"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=PositiveInt, default=default, metavar="N", help=what)
    parser.add_argument("--pairs", type=Pairs, default=8, metavar="N", help="epochs of each, in turn")
    _device(parser)
    parser.add_argument("--out", type=Path | None, metavar="DIR", help="write rows to DIR/rows")
    command.as_json(parser)


def _loop(args: Namespace) -> int:
    from suites.scripts import loop_speed

    return loop_speed.run(args.depth, args.widen, args.images, args.batch, args.pairs, args.device, args.out, args.json)


def _library_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--pairs", type=Pairs, default=30, metavar="N", help="interleaved pairs of each")
    parser.add_argument("--out", type=Path | None, metavar="DIR", help="write rows to DIR/rows")
    command.as_json(parser)


def _library(args: Namespace) -> int:
    from suites.scripts import library_speed

    return library_speed.run(args.pairs, args.out, args.json)


def _study_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--part", nargs="+", default=[], metavar="NAME", help="parts of the study; by default all")
    parser.add_argument("--seeds", type=PositiveInt | None, metavar="N", help="at most so many runs of every arm")
    parser.add_argument("--data-root", type=Path | None, help="where data sets lie; by default $VMO_DATA or data")
    parser.add_argument("--out", default="results/runs", metavar="DIR", help="the folder of all that is written")
    parser.add_argument("--workers", type=PositiveInt, default=1, metavar="N", help="processes at a time")
    parser.add_argument("--launcher", default="local", choices=("local", "ray"), help="ray: on a Ray cluster")
    _device(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the cells, which are done, and an estimate")
    parser.add_argument("--commands", action="store_true", help="print a command for every arm by itself")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _study(args: Namespace) -> int:
    from suites.scripts import study

    return study.run(
        args.part,
        Path(args.out),
        place=Namespace(**{name: args[name] for name in ("data_root", "device", "workers", "launcher")}),
        seeds=args.seeds,
        dry_run=args.dry_run,
        commands=args.commands,
        level="quiet" if args.quiet else "normal",
    )


def _compare_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("target", metavar="FILE.py:NAME", help="your file, and the objective in it")
    parser.add_argument("--logits", default="logits", metavar="NAME", help="the logits in that file")
    parser.add_argument("--weights", type=str | None, metavar="NAME", help="a module or tensors, to measure them too")
    parser.add_argument("--fresh", action="store_true", help="NAME() gives the objective of the next minibatch")
    parser.add_argument("--estimator", nargs="+", default=["all"], metavar="NAME", help="which to measure")
    parser.add_argument("--seconds", type=PositiveFloat, default=120.0, metavar="S", help="time to spend")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all random numbers")
    parser.add_argument("--out", type=Path | None, metavar="DIR", help="write the table, a CSV file and a figure there")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    command.as_json(parser)


def _compare(args: Namespace) -> int:
    from suites.scripts import compare

    return compare.run(
        args.target,
        estimators=args.estimator,
        as_json=args.json,
        **{name: args[name] for name in ("logits", "weights", "fresh", "seconds", "seed", "out", "quiet")},
    )


def _export(args: Namespace) -> int:
    from vmo import export

    return export.run(args)


COMMANDS = (
    Command(
        "compare",
        "Measure estimators on your own objective, and say which one to use.",
        _compare_arguments,
        _compare,
        names={"estimator": lambda: listing.names("estimators")},
    ),
    Command(
        "export",
        "Export the compact network of a finished run of the accuracy suite.",
        export_arguments.add,
        _export,
    ),
    Command(
        "reproduce",
        "Numbers of the literature beside ours, by the code that everything here runs.",
        _reproduce_arguments,
        _reproduce,
        names={"experiment": lambda: EXPERIMENTS},
    ),
    Command(
        "study",
        "Every training run behind the verdicts on the paper's statements.",
        _study_arguments,
        _study,
        names={"part": lambda: listing.names("parts")},
    ),
    Command(
        "gpu",
        "Every check that needs a GPU, and its rows.",
        _gpu_arguments,
        _gpu,
        names={"estimator": lambda: listing.names("estimators")},
    ),
    Command(
        "gpu-projection",
        "What a training run should take on a GPU, projected from what a step computes and moves.",
        _projection_arguments,
        _projection,
        names={"preset": lambda: listing.names("presets")},
    ),
    Command(
        "loop-speed",
        "The plain training loop against the least that it could do, and against one fed by a DataLoader.",
        _loop_arguments,
        _loop,
    ),
    Command(
        "library-speed",
        "Our estimators beside those of other libraries, where these are installed.",
        _library_arguments,
        _library,
    ),
)
