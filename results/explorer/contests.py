"""What the error of a gradient at equal compute is made of, at every place: from the rows of the suite `contest`, or
from those of bias and variance, in units of ‖∇‖²."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from results import contest, known, summary
from results.contest import Contestant

STEPS = "plain steps"


class Group(NamedTuple):
    """The contestants of one part of the gradient at one point of training, and the unit of their costs."""

    part: str
    point: str
    unit: str
    contestants: list[Contestant]
    suites: tuple[str, ...]


def groups(rows: pd.DataFrame, claims: Mapping[str, known.Known]) -> list[Group]:
    """Those of the rows of one place; of one that has both, those of the suite `contest`."""
    found = {(one.part, one.point): one for one in _of_gradients(rows, claims)}
    for where, contestants in contest.groups(rows):
        found[where["part"], where["point"]] = Group(where["part"], where["point"], STEPS, contestants, ("contest",))
    order = {"logits": 0, "weights": 1, "uniform": 0, "mid": 1, "peaked": 2}
    return [found[key] for key in sorted(found, key=lambda key: [order.get(one, 9) for one in key])]


def _of_gradients(rows: pd.DataFrame, claims: Mapping[str, known.Known]) -> Iterator[Group]:
    """‖∇‖² is 1 here. Its error is in that of the relative bias, and is left out of the variance."""
    costs = summary.pool(summary.measured(rows, "cost", suite="variance"))
    norms = summary.squared_norms(rows).groupby(["part", "point"], dropna=False)["norm"].mean()
    bias = summary.relative_bias(rows)
    both = summary.pool(summary.measured(rows, "variance")).merge(
        bias, on=["task", *summary.CONTEXT, "part", "point", "estimator", "name"], suffixes=("", "_b")
    )
    both = both.merge(costs[["estimator", "value", "low", "high"]], on="estimator", suffixes=("", "_c"))
    if both.empty:
        return
    unit = str(summary.measured(rows, "cost", suite="variance")["unit"].iloc[0])
    unit = "evaluations" if unit == "evaluations" else STEPS
    for (part, point), here in both.groupby(["part", "point"], dropna=False):
        contestants = [_one(line, norms[part, point], claims, number) for number, line in enumerate(here.itertuples())]
        yield Group(str(part), str(point), unit, contestants, ("bias", "variance"))


def _one(line: object, norm: float, claims: Mapping[str, known.Known], number: int) -> Contestant:
    label = str(line.estimator)  # type: ignore[attr-defined]
    value, bias, cost = (_error(line, end) for end in ("", "_b", "_c"))
    return Contestant(
        estimator=label,
        name=str(line.name),  # type: ignore[attr-defined]
        unbiased=bool(claims[label].unbiased),
        variance=(value[0] / norm, value[1] / norm),
        bias=bias,
        cost=cost,
        p=np.nan,
        n=int(line.n),  # type: ignore[attr-defined]
        norm=1.0,
        rng=number,
    )


def _error(line: object, end: str) -> tuple[float, float]:
    """A value with its standard error; what was counted has none."""
    value, low, high = (float(getattr(line, f"{name}{end}")) for name in ("value", "low", "high"))
    return value, float(np.nan_to_num((high - low) / 2 / 1.96))
