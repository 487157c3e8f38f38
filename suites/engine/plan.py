"""From what was asked for to cells, with what is known of each before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from results.table import status
from suites import accuracy, bias, contest, memory, overhead, sampling, scaling, variance
from suites.engine.cell import Cell, Workshop
from suites.engine.labels import BASELINES, PLAIN, Label
from suites.presets import described, nearest, select
from suites.tasks.base import Task
from vmo.data import identity


class Suite(NamedTuple):
    """A suite: what measures a cell, whether plain training is a cell of it, whether it repeats over seeds, whether it
    runs only where it is asked for by name, and whether it is timed and has to run alone."""

    run: Callable[[Cell, Workshop], list[dict[str, Any]]]
    baseline: bool = False
    seeds: bool = False
    by_name: bool = False
    alone: bool = False


SUITES = {
    "bias": Suite(bias.run),
    "variance": Suite(variance.run),
    "memory": Suite(memory.run, baseline=True),
    "overhead": Suite(overhead.run, baseline=True, alone=True),
    "accuracy": Suite(accuracy.run, baseline=True, seeds=True),
    "sampling": Suite(sampling.run),
    "scaling": Suite(scaling.run, baseline=True, by_name=True, alone=True),
    "contest": Suite(contest.run, by_name=True, alone=True),
}
COUNTED = 512
OVERWRITE = ("never", "failed", "always")


@dataclass(frozen=True)
class Planned:
    """A cell with the status that is kept of it, if it need not run, why it is impossible, and whether it had run."""

    cell: Cell
    kept: str | None
    impossible: str | None
    again: bool = False

    @property
    def to_do(self) -> bool:
        """Whether it has to run."""
        return self.kept is None

    def __str__(self) -> str:
        if self.kept is not None:
            return "done" if self.kept == "ok" else self.kept
        return "to do" if self.impossible is None else "infeasible"


def suite_names(names: Sequence[str]) -> list[str]:
    """The suites asked for, or all but those that run by name only.

    Raises ValueError, with the nearest, for one that is unknown.
    """
    for name in names:
        if name not in SUITES:
            raise ValueError(f"no suite {name!r}{nearest(name, SUITES)}; there are {', '.join(SUITES)}")
    return list(dict.fromkeys(names)) or [name for name, suite in SUITES.items() if not suite.by_name]


def plan(
    shop: Workshop,
    tasks: Sequence[str],
    labels: Sequence[Label],
    suites: Sequence[str],
    preset: str,
    rows: Path,
    overwrite: str = "never",
) -> list[Planned]:
    """Every cell, in an order in which cells that share work are neighbours: bias and variance of one estimator.

    The controls of learned networks come last, and those networks are planned whether they were asked for or not.
    """
    planned = []
    for name in tasks:
        task = shop.task(name, torch.device("cpu"))  # nothing is computed, and the device may be another machine's
        baseline = [Label(PLAIN)] if any(SUITES[suite].baseline for suite in suites) else []
        learned = [label.of for label in labels if label.of is not None and task.plain]
        for label in sorted(dict.fromkeys([*baseline, *labels, *learned]), key=lambda label: label.of is not None):
            for suite in suites:
                if not _applies(suite, task, label) or (suite != "accuracy" and label not in (*baseline, *labels)):
                    continue
                for seed in range(shop.context.preset.seeds if SUITES[suite].seeds else 1):
                    cell = _cell(shop, task, label, suite, preset, seed)
                    kept = found = status(rows, cell.hash())
                    if overwrite == "always" or (overwrite == "failed" and kept != "ok"):
                        kept = None
                    impossible = None if kept else _impossible(task, label, suite)
                    planned.append(Planned(cell, kept, impossible, again=found is not None and kept is None))
    anew = {item.cell.hash(): item for item in planned}
    return [_following(item, anew) for item in planned]


def _following(item: Planned, planned: dict[str, Planned]) -> Planned:
    """A control runs again where what it controls does, or has been repaired since."""
    learned = item.cell.controlled()
    if learned is None or item.kept is None:
        return item
    other = planned[learned.hash()]
    if other.to_do or (item.kept == "infeasible" and other.kept == "ok"):
        return replace(item, kept=None, again=True)
    return item


def _applies(suite: str, task: Task, label: Label) -> bool:
    if suite == "sampling":
        return label.name == "concrete" and task.name in ("width", "joint")
    if label.name == PLAIN:
        return SUITES[suite].baseline and suite in task.settings and (suite != "accuracy" or task.plain)
    if label.name in BASELINES:
        return suite == "accuracy" and task.plain
    return suite in task.settings


def _cell(shop: Workshop, task: Task, label: Label, suite: str, preset: str, seed: int) -> Cell:
    context = shop.context
    names = task.settings.get(suite, ())
    settings = select(context.preset, names)
    return Cell(
        suite=suite,
        task=task.name,
        task_version=task.version,
        label=label,
        preset=described(context.preset, preset, names),
        dataset=identity(context.dataset, context.data_root) if suite in task.uses_data else "none",
        seed=seed,
        settings=tuple(sorted({**settings, "device": context.device.type}.items())),
    )


def _impossible(task: Task, label: Label, suite: str) -> str | None:
    """Why an estimator cannot work on the sizes of a task, or None. Raises ValueError where the task itself cannot."""
    sizes = task.sizes(suite)
    if label.name in BASELINES:
        return None
    try:
        evaluations = label.make(sizes).evaluations
    except ValueError as error:
        return str(error)
    if suite == "memory" and evaluations > COUNTED:  # every one of them is gone through to count it
        return f"{evaluations:,} evaluations in a step are more than the {COUNTED} whose memory is counted"
    return None
