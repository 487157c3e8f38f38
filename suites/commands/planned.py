"""The plan that `--dry-run` prints: the cells, their status, and how long the rest may take.

The estimated time of a cell is the median over finished cells of the same suite, task, estimator and preset on the same
kind of device. Cells without such rows have no estimate, and the sum says how many these are.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from suites.commands import tables

if TYPE_CHECKING:
    import pandas as pd

    from suites.engine.plan import Planned

KEY = ["suite", "task", "estimator", "preset"]


class Estimate(NamedTuple):
    """Estimated seconds of each cell, the number of cells to run, and how many of these have no estimate."""

    each: list[float | None]
    to_do: int
    unknown: int

    @property
    def seconds(self) -> float:
        """The sum over cells that have an estimate."""
        return sum(one for one in self.each if one is not None)

    def __str__(self) -> str:
        if not self.to_do:
            return "nothing to do"
        if self.unknown == self.to_do:
            return f"no estimate of the time: no cell like the {self.to_do} to do has been measured"
        said = f"about {tables.spoken(self.seconds)} in total, one cell after the other, as long as similar cells took"
        return said + (f"; {self.unknown} of the {self.to_do} to do have no estimate" if self.unknown else "")


def estimate(planned: Sequence[Planned], known: pd.DataFrame) -> Estimate:
    """The estimated time of the cells to do, from rows of other cells."""
    cells = known.drop_duplicates("hash").dropna(subset=["wall_s"])
    cells = cells[cells["status"] == "ok"]
    on_cpu = cells["device"].str.startswith("cpu")
    times: dict[bool, Mapping[Any, float]] = {
        here: cells[on_cpu == here].groupby(KEY)["wall_s"].median().to_dict() for here in (True, False)
    }
    each: list[float | None] = []
    for item in planned:
        if not item.to_do:
            each.append(None)
        elif item.impossible is not None:
            each.append(0.0)
        else:
            cell = item.cell
            key = (cell.suite, cell.task, str(cell.label), cell.preset[0])
            each.append(times[cell.device == "cpu"].get(key))
    to_do = [one for item, one in zip(planned, each, strict=True) if item.to_do and item.impossible is None]
    return Estimate(each, len(to_do), sum(one is None for one in to_do))


def listed(planned: Sequence[Planned], known: pd.DataFrame) -> dict[str, Any]:
    """The plan as JSON."""
    found = estimate(planned, known)
    cells = []
    for item, seconds in zip(planned, found.each, strict=True):
        cell = item.cell.described()
        wanted = ("suite", "task", "estimator", "preset", "dataset", "seed", "settings")
        one = {key: cell[key] for key in wanted} | {"hash": item.cell.hash, "status": str(item), "seconds": seconds}
        cells.append(one | ({"message": item.impossible} if item.impossible else {}))
    counts = dict(Counter(str(item) for item in planned))
    return {"cells": cells, "counts": counts, "seconds": found.seconds, "without_estimate": found.unknown}


def _heading(item: Planned) -> str:
    """The task, the estimator, and the changed settings."""
    changed = "".join(f", {name}={value}" for name, value in item.cell.preset[2])
    return f"{item.cell.task}, {item.cell.label}{changed}"


def show(planned: Sequence[Planned], known: pd.DataFrame) -> None:
    """Print the plan."""
    found = estimate(planned, known)
    pairs = zip(planned, found.each, strict=True)
    for heading, items in itertools.groupby(pairs, lambda pair: _heading(pair[0])):
        tables.say_folded(heading)
        for item, seconds in items:
            cell = item.cell
            took = "" if not item.to_do or item.impossible else "?" if seconds is None else tables.spoken(seconds)
            data = "" if cell.data is None else cell.data.dataset
            line = f"  {item!s:10} {cell.suite:9} seed {cell.seed:<3} {took:>11}  {cell.hash}  {data}"
            tables.say(line.rstrip())
    counts = Counter(str(item) for item in planned)
    tables.say(", ".join(f"{n} {status}" for status, n in counts.items()))
    tables.say(str(found))
