"""Compares published numbers with ours: vmo-bench reproduce.

The experiments are in `suites.scripts.published`, one file each. Every finished run is stored, so that an interrupted
command continues where it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from estimators.options import nearest
from suites.commands import tables
from suites.scripts.published import page as pages
from suites.scripts.published.experiment import Asked, Experiment
from suites.scripts.published.line import Line
from suites.scripts.published.registry import EXPERIMENTS
from suites.scripts.published.store import Store
from vmo import data, partial


def run(
    names: Sequence[str],
    seeds: int,
    out: Path,
    *,
    epochs: int = 0,
    data_root: Path | None = None,
    page: Path | None = None,
    stored: bool = False,
    as_json: bool = False,
) -> int:
    """Run experiments, store their values and print the table. Returns the exit status.

    Args:
        names: the experiments; empty: all that do not take long.
        seeds: runs of each arm.
        out: folder of the stored values.
        epochs: epochs of the experiments that count epochs; 0: a full run.
        data_root: folder of the data sets.
        page: a file for the page with the numbers of all experiments.
        stored: show what is stored, and measure nothing.
        as_json: print JSON.

    Raises:
        ValueError: an unknown experiment, missing data, or a damaged file.
    """
    for name in names:
        if name not in EXPERIMENTS:
            raise ValueError(f"no experiment {name!r}{nearest(name, EXPERIMENTS)}; there are {', '.join(EXPERIMENTS)}")
    asked = [EXPERIMENTS[name] for name in names] or [each for each in EXPERIMENTS.values() if stored or not each.long]
    if epochs and not any(each.unit == "epochs" for each in asked):
        counted = " and ".join(name for name, each in EXPERIMENTS.items() if each.unit == "epochs")
        raise ValueError(f"--epochs is for {counted}; name one of them")
    store = Store(out)
    if not stored:
        for dataset in sorted({each.dataset for each in asked if each.dataset}):
            data.identify(dataset, data_root)  # refuses before anything runs
        for experiment in asked:
            measure(experiment, store, seeds, length_of(experiment, epochs), data_root)
    lines = [line for experiment in asked for line in lines_of(experiment, store)]
    if page is not None:
        text = rendered(store)
        with partial.file(page) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if as_json:
        tables.say_json([line.as_json() for line in lines])
        return 0
    header = ["experiment", "number", "published", "measured (95 %)", "runs", "agrees"]
    tables.show("", header, [_texts(line) for line in lines], keys=2)
    return 0


def rendered(store: Store) -> str:
    """The page with the numbers of all experiments."""
    every = {name: list(lines_of(experiment, store)) for name, experiment in EXPERIMENTS.items()}
    seconds = {name: store.seconds(experiment) for name, experiment in EXPERIMENTS.items()}
    return pages.render(EXPERIMENTS.values(), every, seconds)


def length_of(experiment: Experiment, epochs: int) -> int:
    """The length of its runs."""
    return epochs if epochs and experiment.unit == "epochs" else experiment.length


def measure(experiment: Experiment, store: Store, seeds: int, length: int, data_root: Path | None) -> None:
    """Do the runs that are not stored yet, and store each as soon as it is done."""
    for arm in experiment.arms:
        for seed in arm.seeds(seeds):
            if store.values(experiment, arm, seed, length) is not None:
                continue
            start = time.perf_counter()
            watch = _Watched(f"{experiment.name}, {arm.name}, seed {seed}")
            values = experiment.measure(Asked(arm.name, seed, length, watch, data_root))
            store.add(experiment, arm, seed, length, time.perf_counter() - start, values)


def lines_of(experiment: Experiment, store: Store) -> Iterator[Line]:
    """The published numbers of an experiment beside the stored values of its longest runs."""
    for arm in experiment.arms:
        runs = list(store.done(experiment, arm))
        longest = max((length for _, length, _ in runs), default=0)
        values = [found for _, length, found in runs if length == longest]
        for i, number in enumerate(arm.numbers):
            yield Line(
                experiment.name,
                number,
                [found[i] for found in values],
                f"{longest:,} {experiment.unit}" if values else "",
                short=longest < experiment.length,
            )


class _Watched:
    """Progress bars on standard error, of which only a terminal shows anything."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __call__(self, steps: int) -> Iterable[int]:
        return track(range(1, steps + 1), self.what, transient=True, console=Console(stderr=True))


def _texts(line: Line) -> list[str]:
    what = line.number.what.replace("`", "")
    return [line.experiment, what, line.published_text, line.measured_text, str(len(line.measured)), line.agrees]
