"""What tests of suites and tasks share: a task with its settings, a planned cell, a job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from suites import labels, presets, suite
from suites.engine.cell import Cell, Workshop
from suites.engine.plan import Planned, make_cell, plan
from suites.suite import Job
from suites.tasks import factory
from suites.tasks.base import Context
from suites.tasks.granted import Granted


def granted(
    name: str, *settings: str, preset: str = "smoke", context: Context | None = None, plain: bool = False
) -> Granted:
    """A task that is handed the settings of every role; `plain`: those of plain training, where it has fewer."""
    found, chosen = factory(name)(context or Context()), presets.resolve(preset, settings)
    kinds = {**found.roles, **(found.plain_roles if plain else {})}
    return Granted(found, {role: chosen.hand(kind) for role, kind in kinds.items()})


def workshop(out: Path, **context: Any) -> Workshop:
    """Of the digits, on the CPU."""
    return Workshop(Context(**context), out)


def planned(
    shop: Workshop,
    task: str,
    names: Sequence[str],
    suites: Sequence[str],
    *settings: str,
    preset: str = "smoke",
    **how: Any,
) -> list[Planned]:
    """The plan of these estimators on one task."""
    chosen = presets.resolve(preset, settings)
    wanted = [labels.parse(name) for name in names]
    return plan(shop, chosen, [task], wanted, suites, shop.out / "rows", **how)


def cell(shop: Workshop, task: str, of: str, label: str, *settings: str, seed: int = 0) -> Cell:
    """One cell of the preset `smoke`."""
    chosen = presets.resolve("smoke", settings)
    return make_cell(shop, chosen, shop.task(task), suite.get(of), labels.parse(label), seed)


def job(shop: Workshop, task: str, of: str, label: str, *settings: str, seed: int = 0) -> Job:
    """One cell as its suite sees it."""
    return shop.job(cell(shop, task, of, label, *settings, seed=seed))
