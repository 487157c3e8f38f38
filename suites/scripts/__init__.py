"""Further commands. Their options are declared here; the modules that run them are imported on use."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt, restricted_number_type

from suites.commands import command, listing
from suites.commands.command import Command
from vmo import export_arguments

Pairs = restricted_number_type("an integer of at least 2", int, (">=", 2))
EXPERIMENTS = (
    "bernoulli", "relax", "arm", "arsm", "sum_and_sample", "unordered", "polynomial", "reinmax_vae", "structured",
)  # fmt: skip
LONG = ("reinmax_vae", "structured")


def _device(parser: ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="device to measure on")


def _reproduce_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "experiment",
        nargs="*",
        metavar="NAME",
        help=f"one or more of {', '.join(EXPERIMENTS)}; by default all but {' and '.join(LONG)}, which take long",
    )
    parser.add_argument("--seeds", type=PositiveInt, default=3, metavar="N", help="runs of each number")
    parser.add_argument(
        "--epochs", type=NonNegativeInt, default=0, metavar="N", help=f"epochs of {' and '.join(LONG)}; 0: a full run"
    )
    parser.add_argument(
        "--data-root", type=Path | None, help="folder of the data sets; by default $VMO_DATA, else data"
    )
    parser.add_argument("--out", default="results/runs", metavar="DIR", help="folder of the stored values")
    parser.add_argument("--stored", action="store_true", help="show the stored values, and measure nothing")
    parser.add_argument("--page", type=Path | None, metavar="FILE", help="write all numbers as a page in Markdown")
    command.as_json(parser)


def _reproduce(args: Namespace) -> int:
    from suites.scripts import reproduce

    return reproduce.run(
        args.experiment,
        args.seeds,
        Path(args.out),
        as_json=args.json,
        **{name: args[name] for name in ("epochs", "data_root", "stored", "page")},
    )


def _gpu_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--out", default="results/gpu", metavar="DIR", help="folder for everything that is written")
    parser.add_argument(
        "--estimator", nargs="+", default=["all"], metavar="NAME", help="estimators for the memory and overhead suites"
    )


def _gpu(args: Namespace) -> int:
    from suites.scripts import gpu_check

    return gpu_check.run(Path(args.out), args.estimator)


def _projection_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("preset", nargs="*", metavar="PRESET", help="one or more presets; by default cpu and paper")
    command.as_json(parser)


def _projection(args: Namespace) -> int:
    from suites.scripts import gpu_projection

    return gpu_projection.run(args.preset or ["cpu", "paper"], args.json)


def _loop_arguments(parser: ArgumentParser) -> None:
    for name, default, what in (
        ("depth", 16, "layers of the network"), ("widen", 1, "widening factor of the network"),
        ("images", 1280, "images per epoch"), ("batch", 128, "images per minibatch"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=PositiveInt, default=default, metavar="N", help=what)
    parser.add_argument("--pairs", type=Pairs, default=8, metavar="N", help="epochs of each loop, in turn")
    _device(parser)
    parser.add_argument("--out", type=Path | None, metavar="DIR", help="write rows to DIR/rows")
    command.as_json(parser)


def _loop(args: Namespace) -> int:
    from suites.scripts import loop_speed

    return loop_speed.run(args.depth, args.widen, args.images, args.batch, args.pairs, args.device, args.out, args.json)


def _library_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--pairs", type=Pairs, default=30, metavar="N", help="interleaved pairs per estimator")
    parser.add_argument("--out", type=Path | None, metavar="DIR", help="write rows to DIR/rows")
    command.as_json(parser)


def _library(args: Namespace) -> int:
    from suites.scripts import library_speed

    return library_speed.run(args.pairs, args.out, args.json)


def _study_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--part", nargs="+", default=[], metavar="NAME", help="parts of the study; by default all")
    parser.add_argument("--seeds", type=command.Seeds, metavar="N", help="most runs of each arm")
    parser.add_argument(
        "--data-root", type=Path | None, help="folder of the data sets; by default $VMO_DATA, else data"
    )
    parser.add_argument("--out", default="results/runs", metavar="DIR", help="folder for everything that is written")
    parser.add_argument("--workers", type=PositiveInt, default=1, metavar="N", help="number of processes")
    parser.add_argument(
        "--launcher", default="local", choices=("local", "ray"), help="local: this machine; ray: a Ray cluster"
    )
    _device(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="print the cells, their status and an estimate of the time; run nothing"
    )
    parser.add_argument(
        "--overwrite", default="never", choices=command.OVERWRITE, help="which finished cells to run again"
    )
    parser.add_argument("--commands", action="store_true", help="print a separate command for each arm; run nothing")
    parser.add_argument("--quiet", action="store_true", help="print no progress")


def _study(args: Namespace) -> int:
    from suites.scripts import study

    return study.run(
        args.part,
        Path(args.out),
        place=Namespace(**{name: args[name] for name in ("data_root", "device", "workers", "launcher")}),
        seeds=args.seeds,
        dry_run=args.dry_run,
        commands=args.commands,
        overwrite=args.overwrite,
        level="quiet" if args.quiet else "normal",
    )


def _compare_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("target", metavar="FILE.py:NAME", help="your file, and the objective in it")
    parser.add_argument("--logits", default="logits", metavar="NAME", help="the logits in that file")
    parser.add_argument("--weights", type=str | None, metavar="NAME", help="a module or tensors, to measure them too")
    parser.add_argument(
        "--fresh", action="store_true", help="NAME() gives the objective of the next minibatch, or (objective, logits)"
    )
    parser.add_argument(
        "--estimator", nargs="+", default=["all"], metavar="NAME", help="which to measure, such as rloo[samples=4]"
    )
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
        "The file defines the objective and its logits:\n"
        f"    {command.PROGRAM} compare my_model.py:objective --logits logits --seconds 60\n"
        "The table and an advice are printed. See docs/tutorials/compare.md.",
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
        "Compare published numbers with ours.",
        _reproduce_arguments,
        _reproduce,
        "Small experiments of papers are repeated with the code of this project. Every finished run is stored: the\n"
        "same command continues where it was interrupted, and shows stored values without measuring them again.",
        names={"experiment": lambda: EXPERIMENTS},
    ),
    Command(
        "study",
        "Run the study: all training runs behind the verdicts on the paper's statements.",
        _study_arguments,
        _study,
        names={"part": lambda: listing.names("parts")},
    ),
    Command(
        "gpu",
        "Run every check that needs a GPU.",
        _gpu_arguments,
        _gpu,
        names={"estimator": lambda: listing.names("estimators")},
    ),
    Command(
        "gpu-projection",
        "Project the time of a training run on a GPU from the operations and memory traffic of a step.",
        _projection_arguments,
        _projection,
        names={"preset": lambda: listing.names("presets")},
    ),
    Command(
        "loop-speed",
        "Compare the plain training loop with bare steps and with a loop that uses a DataLoader.",
        _loop_arguments,
        _loop,
    ),
    Command(
        "library-speed",
        "Compare the speed of our estimators with those of other installed libraries.",
        _library_arguments,
        _library,
    ),
)
