"""The command line: python -m suites.run --estimator relax --task width."""

from __future__ import annotations

import argparse
import inspect
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import estimators
import results
from results import paper, report, stats, table
from results.summary import summary
from suites import labels, presets, suite, tasks
from suites.engine import on_ray as ray_launcher
from suites.engine.cell import Workshop
from suites.engine.local import InProcess, LocalProcesses
from suites.engine.plan import OVERWRITE, Planned, plan, prepare, suite_names
from suites.engine.progress import Progress
from suites.engine.schedule import sweep
from suites.tasks.base import Context
from vmo import data

REFERENCE = Path(results.__file__).parent / "reference" / "rows"
DATASETS = (*data.NAMES, "NAME.npz")
ESTIMATOR = (
    'one or more, or "all"; options in brackets: "relax[hidden=32]"; or a baseline of the accuracy suite: plain, '
    'random, "uniform[of=NAME]", "scratch[of=NAME]"'
)
SUITES = suite.available()
BY_NAME = tuple(name for name in SUITES if suite.get(name).by_name)
EPILOG = """\
examples:
  python -m suites.run --estimator relax --task width
  python -m suites.run --estimator rloo "concrete[temperature=0.5]" --task toy width --suite bias variance
  python -m suites.run --compare rloo concrete --task width --suite accuracy --seeds 5
  python -m suites.run --estimator rloo --task width --dataset cifar10 --data-root data --preset cpu --suite accuracy
  python -m suites.run --estimator rloo random "uniform[of=rloo]" "scratch[of=rloo]" --task width --suite accuracy
  python -m suites.run --estimator rloo concrete "rebar[coupled=true]" --task width --suite scaling
  python -m suites.run --estimator all --task toy --dry-run

A finished cell is never run twice: the same command answers from its rows, and an interrupted one goes on.
"""


def parser() -> argparse.ArgumentParser:
    """The arguments, with their help."""
    parse = argparse.ArgumentParser(
        prog="python -m suites.run",
        description="Measure gradient estimators on the tasks of variational model optimisation: bias, variance, "
        "memory, overhead and accuracy, as rows, figures and a report.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    several: dict[str, Any] = {"nargs": "+", "default": [], "metavar": "NAME"}
    parse.add_argument("--estimator", **several, help=ESTIMATOR)
    parse.add_argument("--task", **several, help=f"one or more of {', '.join(tasks.available())}")
    parse.add_argument(
        "--suite", **several, help=f"some of {', '.join(SUITES)}; by default all that apply but {', '.join(BY_NAME)}"
    )
    parse.add_argument("--preset", default="quick", help=f"{', '.join(presets.PRESETS)}; by default quick")
    parse.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="change settings of the preset, such as epochs=2"
    )
    parse.add_argument(
        "--target-macs", metavar="R", help="hold q to this part of the full network's MACs instead of penalising them"
    )
    parse.add_argument("--dataset", help=f"{', '.join(DATASETS)}; by default the preset's")
    parse.add_argument("--data-root", type=Path, help="where data sets lie; by default $VMO_DATA or data")
    parse.add_argument("--seeds", type=int, metavar="N", help="of the accuracy suite; by default the preset's")
    parse.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parse.add_argument("--out", type=Path, default=Path("results/runs"), help="by default results/runs")
    parse.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="between checkpoints of a run; by default 60",
    )
    parse.add_argument("--workers", type=int, default=1, metavar="N", help="processes at a time; by default 1")
    parse.add_argument(
        "--launcher",
        default="local",
        choices=("local", "ray"),
        help="ray: on the Ray cluster of RAY_ADDRESS or of this machine, OMP_NUM_THREADS (or 1) CPUs a cell",
    )
    parse.add_argument("--dry-run", action="store_true", help="print the cells and which are done")
    parse.add_argument("--overwrite", default="never", choices=OVERWRITE, help="which finished cells to run again")
    parse.add_argument("--list", action="store_true", help="print estimators, tasks, suites, presets and data sets")
    parse.add_argument("--compare", nargs=2, metavar=("A", "B"), help="run both and print their paired difference")
    return parse


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0, 1 where a cell met an error, 2 for what cannot be done."""
    args = parser().parse_args(argv)
    try:
        return _list() if args.list else _run(args)
    except (ValueError, OSError) as error:  # what was asked for cannot be done: one line that says what and where
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; finished cells are kept, and the same command goes on from there", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace) -> int:
    names = list(dict.fromkeys([*args.estimator, *(args.compare or [])]))
    if not names or not args.task:
        raise ValueError("--estimator and --task are needed (--help explains, --list names them)")
    chosen = [labels.parse(name) for name in _expand(names)]
    for name in args.task:
        tasks.factory(name)
    suites = suite_names(args.suite)
    if args.target_macs == "0":
        raise ValueError("--target-macs must lie in (0, 1], a part of the full network's, got 0")
    given = [] if args.target_macs is None else [f"penalty.target_macs={args.target_macs}"]
    preset = presets.resolve(args.preset, [*args.set, *given])
    if args.seeds is not None and not 1 <= args.seeds <= 1000:
        raise ValueError(f"--seeds must lie in 1 … 1000, got {args.seeds}")
    if args.workers < 1 or not args.checkpoint_seconds >= 0:
        raise ValueError("--workers must be at least 1 and --checkpoint-seconds at least 0")
    _check_dataset(args.dataset)
    on_ray = args.launcher == "ray"
    if on_ray:
        if args.workers != 1:
            raise ValueError("--workers is of the local launcher: a Ray cluster runs as many cells as it has room for")
        ray_launcher.connect()
    context = Context(args.dataset or presets.DATASETS[args.preset], args.data_root, _device(args.device, on_ray))
    rows = args.out / "rows"
    if not args.dry_run:
        _check_writable(args.out)
    with Progress() as progress:
        shop = Workshop(Context(**{**vars(context), "progress": progress.detail}), args.out, args.checkpoint_seconds)
        planned = plan(shop, preset, args.task, chosen, suites, rows, seeds=args.seeds, overwrite=args.overwrite)
        if not planned:
            raise ValueError(
                f"no cell: {', '.join(suites)} does not apply to {', '.join(names)} on {', '.join(args.task)}"
            )
        if args.dry_run:
            _print_plan(planned)
            return 0
        asked = [item for item in planned if item.cell.label.name not in labels.BASELINES]
        reasons = [item.impossible for item in asked]
        if asked and all(reasons) and len({item.cell.label for item in asked}) == 1:
            raise ValueError(reasons[0])
        prepare(shop, planned, torch.device("cpu") if on_ray else None)
        failures = 0
        progress.begin(planned)
        one = args.workers == 1
        executor = ray_launcher.OnRay() if on_ray else InProcess() if one else LocalProcesses(args.workers)
        for done in sweep(planned, shop, rows, executor):
            failures += done.status == "error"
            progress.finished(done)
    _present(args, planned, rows, chosen)
    return 1 if failures else 0


def _expand(names: Sequence[str]) -> list[str]:
    return [one for name in names for one in (estimators.available() if name == "all" else (name,))]


def _check_dataset(name: str | None) -> None:
    if name is not None and not name.endswith(".npz") and name not in DATASETS[:-1]:
        raise ValueError(f"no data set {name!r}{presets.nearest(name, DATASETS)}; there are {', '.join(DATASETS)}")


def _device(name: str, on_ray: bool) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device must be auto, cpu or cuda, got {name!r}")
    there = name != "cpu" and (ray_launcher.has_gpu() if on_ray else torch.cuda.is_available())
    if name == "cuda" and not there:
        where = "the Ray cluster has no GPU" if on_ray else "this machine has no CUDA device"
        raise ValueError(f"--device cuda: {where} that PyTorch can use")
    return torch.device("cuda" if there else "cpu")


def _check_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ValueError(f"--out {out} cannot be written: {error.strerror}") from None


def _print_plan(planned: Sequence[Planned]) -> None:
    shown = Table("suite", "task", "estimator", "dataset", "seed", "cell", "status")
    for item in planned:
        cell = item.cell
        shown.add_row(
            cell.suite,
            cell.task,
            escape(str(cell.label)),
            cell.described()["dataset"],
            str(cell.seed),
            cell.hash,
            str(item),
        )
    console = _console()
    console.print(shown)
    counts = pd.Series([str(item) for item in planned]).value_counts()
    console.print(", ".join(f"{n} {status}" for status, n in counts.items()))


def _present(args: argparse.Namespace, planned: Sequence[Planned], rows: Path, chosen: Sequence[labels.Label]) -> None:
    """Figures, report and the final table, own rows beside the committed reference rows."""
    written = report.build([rows, REFERENCE], args.out)
    frame = table.read(rows, REFERENCE)
    console = _console()
    own, hashes = {str(label) for label in chosen}, {item.cell.hash for item in planned}
    # of the estimators asked for, the cells asked for and not those of other settings; of the others, all
    stale = frame["estimator"].isin(own) & frame["suite"].isin({i.cell.suite for i in planned})
    here = frame["preset"].isin({args.preset, *(item.cell.preset[0] for item in planned)})
    same = frame[here & (frame["hash"].isin(hashes) | ~stale)]
    for task in dict.fromkeys(args.task):
        shown = summary(same, task)
        if not shown.empty:
            _print_frame(console, shown.reset_index(), f"{task}, preset {args.preset} (measured here in bold)", own)
    if any(item.cell.suite == "accuracy" for item in planned):
        for place, lines, noise in paper.beside(same[same["task"].isin(args.task)]):
            _print_frame(console, lines.reset_index(), f"Table 1 of the paper, and ours: {place}", own, key=1)
            console.print(noise)
    if args.compare:
        _print_comparison(console, frame[frame["hash"].isin({item.cell.hash for item in planned})], args.compare)
    failed: dict[tuple[str, ...], dict[str, None]] = {}
    for item in planned:
        if (kept := table.status(rows, item.cell.hash)) not in ("ok", None):
            message = table.read_file(rows / f"{item.cell.hash}.jsonl")[0]["message"]
            where = str(kept), str(item.cell.label), item.cell.task, message
            failed.setdefault(where, {})[item.cell.suite] = None
    for (kept, label, task, message), suites in failed.items():
        console.print(f"{kept}: {label} on {task} ({', '.join(suites)}): {message}", markup=False)
    console.print(f"rows     {rows}\nfigures  {args.out / 'figures'}\nreport   {written}", markup=False, soft_wrap=True)


def _print_frame(console: Console, frame: pd.DataFrame, title: str, own: set[str], key: int = 0) -> None:
    shown = Table(*(str(column) for column in frame.columns), title=title)
    for line in frame.astype(str).replace(r" \(n = .*?\)", "", regex=True).itertuples(index=False):
        shown.add_row(*map(escape, line), style="bold" if line[key] in own else None)
    console.print(shown)


def _print_comparison(console: Console, frame: pd.DataFrame, pair: Sequence[str]) -> None:
    """A minus B, metric by metric, paired by seed."""
    a, b = (str(labels.parse(name)) for name in pair)
    final = frame[(frame["suite"] == "accuracy") & frame["x"].isna() & frame["value"].notna()]
    shown = Table("task", "metric", escape(f"{a} − {b}"), "95 % interval", "p", "pairs", title="paired by seed")
    for (task, metric, part), group in final.groupby(["task", "metric", "part"], dropna=False):
        wide = group.pivot_table(index="seed", columns="estimator", values="value")
        if a in wide and b in wide and len(both := wide[[a, b]].dropna()):
            d = stats.paired(both[a], both[b])
            name = metric if pd.isna(part) else f"{metric} ({part})"
            shown.add_row(task, name, f"{d.estimate:.4g}", f"{d.low:.4g} … {d.high:.4g}", f"{d.p:.3g}", str(d.n))
    console.print(shown if shown.row_count else "nothing to pair: --compare reads the accuracy suite")


def _console() -> Console:
    """Standard output; where that is no terminal, wide enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def _list() -> int:
    console = _console()
    shown = Table("estimator", "options", "what it is")
    for name in estimators.available():
        make = estimators.factory(name)
        options = [p for p in inspect.signature(make).parameters.values() if p.kind is p.KEYWORD_ONLY]
        summary_line = (sys.modules[make.__module__].__doc__ or make.__doc__ or "").strip().splitlines()[0]
        defaults = ", ".join(f"{p.name}={p.default!r}" for p in options)
        shown.add_row(name, escape(defaults), escape(summary_line))
    console.print(shown)
    for what, names in {
        "baselines": (labels.PLAIN, labels.RANDOM, *(f"{name}[of=NAME]" for name in labels.FIXED)),
        "tasks": tasks.available(), "suites": [name + " (by name only)" * (name in BY_NAME) for name in SUITES],
        "presets": presets.PRESETS, "data sets": DATASETS
    }.items():  # fmt: skip
        console.print(f"{what:10s} {', '.join(names)}", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
