"""Plans the cells of a command, with what is known about each before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from results import known
from results.table import rows_of, status
from suites import settings, suite
from suites.engine.cell import Cell, Workshop
from suites.labels import PLAIN, Label, parse
from suites.learned import widths
from suites.settings import Preset
from suites.suite import Suite
from suites.tasks.base import Task


@dataclass(frozen=True)
class Planned:
    """A planned cell.

    Attributes:
        cell: the cell.
        kept: the status of its existing rows; None if it has to run.
        impossible: why it cannot be measured, or None.
        again: whether it has rows that are to be replaced.
    """

    cell: Cell
    kept: str | None
    impossible: str | None
    again: bool = False

    @property
    def suite(self) -> Suite:
        """The suite of the cell."""
        return suite.get(self.cell.suite)

    @property
    def to_do(self) -> bool:
        """Whether the cell has to run."""
        return self.kept is None

    def __str__(self) -> str:
        if self.kept is not None:
            return "done" if self.kept == "ok" else self.kept
        return "to do" if self.impossible is None else "infeasible"


def suite_names(names: Sequence[str]) -> list[str]:
    """The named suites, or all that need not be named.

    Raises:
        ValueError: an unknown suite; the message suggests the nearest.
    """
    if names:
        return [suite.get(name).name for name in dict.fromkeys(names)]
    return [name for name in suite.available() if not suite.get(name).by_name]


def plan(
    shop: Workshop,
    preset: Preset,
    tasks: Sequence[str],
    labels: Sequence[Label],
    suites: Sequence[str],
    rows: Path,
    *,
    seeds: int | None = None,
    overwrite: str = "never",
) -> list[Planned]:
    """All cells, ordered so that cells that share work are neighbours, such as bias and variance of one estimator.

    What needs a learned network comes last. The runs that learn these networks are planned too, even if not requested.

    Args:
        shop: provides data and device.
        preset: the values of all settings.
        tasks: names of the tasks.
        labels: estimators and baselines.
        suites: names of the suites.
        rows: the folder of existing rows.
        seeds: number of seeds for suites that repeat over seeds; None: their number at the preset.
        overwrite: which cells with rows run again: "never", "failed" or "always".
    """
    planned = []
    for name in tasks:
        task = shop.task(
            name, torch.device("cpu")
        )  # the plan computes nothing, and the device may be on another machine
        asked = [suite.get(one) for one in suites]
        followed = [suite.get(one.follows) for one in asked if one.follows is not None and one.follows not in suites]
        measuring = sorted([*asked, *followed], key=lambda one: one.follows is not None)
        baseline = [Label(PLAIN)] if any(one.baseline for one in asked) else []
        learned = [label.of for label in labels if label.of is not None and task.plain]
        for label in sorted(dict.fromkeys([*baseline, *labels, *learned]), key=lambda label: label.of is not None):
            for one in measuring:
                if not one.applies(task, label) or label not in _wanted(one, task, labels, asked, baseline):
                    continue
                count = (seeds or one.seeds.get(preset.name, 1)) if one.seeds else 1
                for seed in range(count):
                    cell = make_cell(shop, preset, task, one, label, seed)
                    kept = found = status(rows, cell.hash)
                    if overwrite == "always" or (overwrite == "failed" and kept != "ok"):
                        kept = None
                    impossible = None if kept else _impossible(task, one, cell)
                    planned.append(Planned(cell, kept, impossible, again=found is not None and kept is None))
    every = {item.cell.hash: item for item in planned}
    return [_following(item, every, rows) for item in planned]


def _wanted(
    one: Suite, task: Task, labels: Sequence[Label], asked: Sequence[Suite], baseline: Sequence[Label]
) -> set[Label]:
    """The labels that a suite measures: those asked for, and those whose learned networks others need."""
    if one.name in {of.name for of in asked}:
        wanted = [*baseline, *labels]
        needing = labels if one.controls and one.follows is None else []
    else:  # only because another suite follows it
        wanted = [label for label in labels if any(of.follows == one.name and of.applies(task, label) for of in asked)]
        needing = wanted
    return {*wanted, *(label.of for label in needing if label.of is not None)}


def make_cell(shop: Workshop, preset: Preset, task: Task, of: Suite, label: Label, seed: int) -> Cell:
    """Make a cell, with everything that its code is handed."""
    kinds = {**task.roles, **(task.plain_roles if label.name == PLAIN else {})}
    handed = tuple((role, preset.hand(kinds[role])) for role in of.roles)
    used = {*of.uses, *(name for role, how in handed for name in task.uses(role, how))}
    uses = {*used, *label.inside, *(name for one in used for name in parse(one).inside)}
    own = preset.hand(of.settings)
    named, changed = preset.label(settings.dotted(settings.identity([own, *(how for _, how in handed)])))
    return Cell(
        suite=of.name,
        suite_version=of.version,
        task=task.name,
        task_version=task.version,
        label=label,
        seed=seed,
        device=shop.context.device.type,
        own=own,
        handed=handed,
        uses=tuple(sorted((name, parse(name).version) for name in uses)),
        data=task.data if task.uses_data & set(of.roles) else None,
        preset=(named, preset.name, tuple(changed.items())),
    )


def prepare(shop: Workshop, planned: Sequence[Planned], device: torch.device | None = None) -> None:
    """Load the data of the cells to do and check settings against them. Raises ValueError if they do not fit."""
    asked = {(item.cell.task, role, how) for item in planned if item.to_do for role, how in item.cell.handed}
    for name, role, how in sorted(asked, key=str):
        shop.task(name, device).prepare(role, how)


def _following(item: Planned, planned: Mapping[str, Planned], rows: Path) -> Planned:
    """A cell runs again if the run whose network it needs does, has succeeded since, or has another network now."""
    learned = item.cell.needed()
    if learned is None or item.kept is None:
        return item
    other = _following(planned[learned.hash], planned, rows)
    succeeded = item.kept == "infeasible" and other.kept == "ok"
    if other.to_do or succeeded or _outdated(item.cell, learned, rows):
        return replace(item, kept=None, again=True)
    return item


def _outdated(cell: Cell, learned: Cell, rows: Path) -> bool:
    """Whether a cell measured another network than the one that is there now. Earlier rows do not say which."""
    measured = rows_of(rows, cell.hash)[0]["provenance"].get("learned")
    return measured is not None and measured != widths(rows_of(rows, learned.hash))


def _impossible(task: Task, of: Suite, cell: Cell) -> str | None:
    """Why an estimator cannot work on a task, or None. Raises ValueError if the task's settings are invalid."""
    if not of.roles or cell.label.name == PLAIN:
        return None
    role, how = cell.handed[0]
    if cell.label.rival is not None:
        return task.unfit(cell.label.name, how)
    needs = known.of(cell.label.name, dict(cell.label.options)).needs
    if not task.slopes and needs is not None and "slopes" in needs:
        return f"{cell.label} needs ∂f/∂sample, and the objective of {task.name} has none"
    return of.impossible(cell.label, task.sizes(role, how))
