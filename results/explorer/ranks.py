"""Ranks on each task, and performance profiles over tasks (Dolan and Moré 2002, "Benchmarking optimization software
with performance profiles").

A profile says of an estimator on which part of the tasks its measure is within τ times the best one,

    ρ(τ) = |{tasks : measure / best measure ≤ τ}| / |tasks|.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from results import known, summary

MORE_IS_BETTER = ("test accuracy", "test ELBO")
RESULTS = ("test accuracy", "test ELBO", "objective gap")
RESULT = "final result"
"""Of a task the first of `RESULTS` that it has."""
RANKED = ("variance × cost", "relative bias", "step time", "peak memory", RESULT)
PROFILED = ("variance × cost", "step time", "peak memory")
"""What is positive, and the smaller the better, on every task."""
REFERENCES = ("plain", "zero", *summary.CONTROLS)
"""What has no rank."""
ORACLE = "exact"


class Rank(NamedTuple):
    """A rank, the ranks that overlapping intervals leave open, and of how many."""

    rank: int
    first: int
    last: int
    of: int


def quantity(quantities: Mapping[str, pd.DataFrame], name: str) -> str | None:
    """Which quantity of a task a measure is; None if it was not measured there."""
    return next((one for one in (RESULTS if name == RESULT else (name,)) if one in quantities), None)


def measure(quantities: Mapping[str, pd.DataFrame], name: str) -> pd.DataFrame | None:
    """The pooled numbers of a measure on a task, without what has no rank; None if it was not measured there."""
    which = quantity(quantities, name)
    return None if which is None else quantities[which][lambda rows: ~rows["name"].isin(REFERENCES)]


def ranks(rows: pd.DataFrame, more: bool) -> dict[str, Rank]:
    """The rank of every estimator. Without an interval a number is taken as exact.

    Args:
        rows: a number for each estimator, with its interval.
        more: whether more is better.
    """
    sign = -1.0 if more else 1.0
    value = sign * rows["value"].to_numpy(np.float64)
    ends = sign * rows[["low", "high"]].fillna({"low": rows["value"], "high": rows["value"]}).to_numpy(np.float64)
    low, high = ends.min(axis=1), ends.max(axis=1)
    found = {}
    for i, label in enumerate(rows["estimator"]):
        better, worse = int((high < low[i]).sum()), int((low > high[i]).sum())
        found[str(label)] = Rank(1 + int((value < value[i]).sum()), 1 + better, len(rows) - worse, len(rows))
    return found


def table(quantities: Mapping[str, Mapping[str, pd.DataFrame]], name: str) -> dict[str, dict[str, Rank]]:
    """Of each task the ranks on one measure."""
    found = {}
    for task, here in quantities.items():
        rows = measure(here, name)
        if rows is not None and len(rows) > 1:
            if name == "relative bias":  # an estimate of a square may be negative, and is then no better than 0
                rows = rows.assign(value=rows["value"].clip(lower=0))
            found[task] = ranks(rows, quantity(here, name) in MORE_IS_BETTER)
    return found


def relative(found: Mapping[str, Mapping[str, Rank]], label: str) -> float:
    """The mean over tasks of the rank as a part of the way from the best (0) to the worst (1)."""
    return float(np.mean([(here[label].rank - 1) / (here[label].of - 1) for here in found.values() if label in here]))


def profile(
    quantities: Mapping[str, Mapping[str, pd.DataFrame]], name: str, claims: Mapping[str, known.Known]
) -> tuple[list[str], dict[str, dict[str, float]]]:
    """The tasks, and of every estimator the ratio of its measure to the best one on each task that it was measured on.

    Of variance × cost only what is unbiased takes part, and not enumeration, which has none where it can be done.
    """
    tasks: list[str] = []
    ratios: dict[str, dict[str, float]] = {}
    for task, here in quantities.items():
        rows = measure(here, name)
        if rows is not None and name == "variance × cost":
            unbiased = rows["estimator"].map(lambda label: bool(claims[label].unbiased)).astype(bool)
            rows = rows[unbiased & (rows["name"] != ORACLE)]
        rows = None if rows is None else rows[rows["value"] > 0]
        if rows is None or rows["estimator"].nunique() < 2:
            continue
        tasks.append(task)
        for label, value in rows[["estimator", "value"]].itertuples(index=False, name=None):
            ratios.setdefault(str(label), {})[task] = float(value / rows["value"].min())
    return tasks, ratios


def highlighted(frame: pd.DataFrame, most: int) -> list[str]:
    """Which estimators stand out at first: of those without options the ones that most cells are of."""
    cells = frame[~frame["name"].isin([*REFERENCES, ORACLE])].drop_duplicates("hash")
    plain = cells[cells["estimator"] == cells["name"]]
    counts = (cells if plain.empty else plain)["estimator"].value_counts()
    return sorted(map(str, counts.index), key=lambda label: (-counts[label], label))[:most]
