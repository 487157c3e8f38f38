"""A plan as it is shown by `--dry-run`: the cells, which are done, and how long the rest may take.

The time of a cell is the median of what cells of the same suite, task, estimator and preset took, on a device of the
same kind, by their rows. A cell of which there are none has no estimate, and the sum says how many these are.
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
    """Seconds of the cells that are to do, one after the other, and how many of these have no estimate."""

    each: list[float | None]
    to_do: int
    unknown: int

    @property
    def seconds(self) -> float:
        """Of all that have one."""
        return sum(one for one in self.each if one is not None)

    def __str__(self) -> str:
        if not self.to_do:
            return "nothing is to do"
        if self.unknown == self.to_do:
            return f"no estimate of the time: no like cell of the {self.to_do} to do has been measured"
        said = (
            f"about {tables.spoken(self.seconds)}, one cell after the other, by the time of like cells where they ran"
        )
        return said + (f"; {self.unknown} of the {self.to_do} to do have no estimate" if self.unknown else "")


def estimate(planned: Sequence[Planned], known: pd.DataFrame) -> Estimate:
    """The time of what is to do, by rows of other cells."""
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
    """The task, the estimator, and what was changed of the preset."""
    changed = "".join(f", {name}={value}" for name, value in item.cell.preset[2])
    return f"{item.cell.task}, {item.cell.label}{changed}"


def show(planned: Sequence[Planned], known: pd.DataFrame) -> None:
    """Print it."""
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
