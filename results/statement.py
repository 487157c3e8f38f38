"""A statement of the paper: the tests that it rests on, and how a verdict follows from them.

A *test* compares an effect with a threshold that was fixed before the runs, by one-sided t tests in both directions. A
statement is supported where all of its tests are, and contradicted where one of them is. The p values of all statements
are corrected together by Holm's method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats as distributions

from results import stats
from results.study_design import LEVEL, MARGIN, SEEDS

Verdict = Literal["supported", "contradicted", "undecided", "not measured"]


@dataclass(frozen=True)
class Evidence:
    """An effect and what it is held against.

    Attributes:
        measure: what the effect is, with its unit.
        where: task, data set and preset.
        estimate, low, high, n: the effect with its 95 % interval.
        threshold: None: the effect is told beside the tests and decides nothing.
        above: whether the statement says that the effect is above the threshold, and not below it.
        p_yes, p_no: one-sided p values of what the statement says and of its contrary.
        sd: standard deviation of the differences that the effect is a mean of, where it is one.
    """

    measure: str
    where: str = ""
    estimate: float = np.nan
    low: float = np.nan
    high: float = np.nan
    n: int = 0
    threshold: float | None = None
    above: bool = True
    p_yes: float = np.nan
    p_no: float = np.nan
    sd: float = np.nan


@dataclass(frozen=True)
class Statement:
    """A statement, what it rests on, and what follows.

    Attributes:
        number: 1 to 10.
        words: what the paper says.
        rule: when it is supported, in words.
        tests: all of them decide.
        beside: what was measured beside them.
        verdict: after the correction.
        open: where it is undecided, what keeps it so.
        cells: the hashes of what was read for it.
    """

    number: int
    words: str
    rule: str
    tests: tuple[Evidence, ...] = ()
    beside: tuple[Evidence, ...] = ()
    verdict: Verdict = "not measured"
    p: float = np.nan
    open: str = ""
    cells: tuple[str, ...] = ()


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p values by Holm's method; NaN stays NaN, and counts as a comparison all the same."""
    values = np.asarray(p, np.float64)
    order = np.argsort(np.where(np.isnan(values), np.inf, values), kind="stable")
    factors = np.arange(len(values), 0, -1)
    running = np.maximum.accumulate(np.where(np.isnan(values[order]), 0.0, values[order] * factors))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, running)
    return [float(q) for q in np.where(np.isnan(values), np.nan, adjusted)]


def p_values(of: Statement) -> tuple[float, float]:
    """Two-sided p values of support, which all tests must give, and of contradiction, which one of several gives."""
    if not of.tests or any(np.isnan(test.p_yes) for test in of.tests):
        return np.nan, np.nan
    yes = max(test.p_yes for test in of.tests)
    no = min(1.0, len(of.tests) * min(test.p_no for test in of.tests))
    return min(1.0, 2 * yes), min(1.0, 2 * no)


def concluded(of: Statement, p: float) -> Statement:
    if np.isnan(p):
        return of
    yes, no = p_values(of)
    if p < LEVEL:
        return replace(of, p=p, verdict="supported" if yes <= no else "contradicted")
    weakest = max(of.tests, key=lambda test: min(test.p_yes, test.p_no))
    return replace(of, p=p, verdict="undecided", open=_open(weakest))


def _open(test: Evidence) -> str:
    """What keeps a test open: what its seeds can show, and how many would show the difference that matters."""
    if not np.isfinite(test.sd):
        return f"{test.measure}: its interval includes {test.threshold:g}"
    seen = stats.detectable(test.sd, test.n)
    needed = stats.needed(test.sd, MARGIN)
    more = "more than 1,000" if needed is None else str(needed)
    return f"{test.n} seeds show {seen:.2g} with a power of 80 %; {MARGIN:g} takes {more} seeds"


# --- tests ----------------------------------------------------------------------------------------------------------


def of_seeds(measure: str, where: str, effect: pd.Series, threshold: float | None, above: bool = True) -> Evidence:
    """A t test of the mean over seeds; none with fewer than the design has."""
    values = effect.dropna().to_numpy(np.float64)
    found = stats.t_interval(values)
    test = Evidence(measure, where, *found[:3], int(found.n), threshold, above)
    if threshold is None or len(values) < SEEDS:
        return test
    sd = float(values.std(ddof=1))
    distance = values.mean() - threshold
    t = distance / (sd / np.sqrt(len(values))) if sd > 0 else np.copysign(np.inf, distance)
    greater = float(distributions.t.sf(t, len(values) - 1)) if distance else 0.5
    yes, no = (greater, 1 - greater) if above else (1 - greater, greater)
    return replace(test, p_yes=yes, p_no=no, sd=sd)


def of_interval(measure: str, where: str, line: pd.Series, threshold: float | None, above: bool = True) -> Evidence:
    """A normal test from a 95 % interval; of what is counted and has none, a comparison."""
    value, low, high = (float(line[name]) for name in ("value", "low", "high"))
    test = Evidence(measure, where, value, low, high, int(line["n"]), threshold, above)
    if threshold is None:
        return test
    if np.isnan(low) or low == high:  # counted
        greater = float(value < threshold)
    else:
        half = (high - low) / 2
        greater = float(distributions.norm.sf((value - threshold) / (half / 1.96)))
    yes, no = (greater, 1 - greater) if above else (1 - greater, greater)
    return replace(test, p_yes=yes, p_no=no)


def apart(one: pd.Series, other: pd.Series) -> pd.Series:
    both = pd.concat([one, other], axis=1, join="inner")
    return both.iloc[:, 0] - both.iloc[:, 1]


def lines(statements: Sequence[Statement]) -> Iterator[dict[str, str]]:
    """A line for each statement, as the table shows it."""
    for one in statements:
        yield {
            "": str(one.number),
            "statement": one.words,
            "verdict": f"**{one.verdict}**",
            "measured": "<br>".join(test.measure for test in one.tests) or "",
            "effect (95 %)": "<br>".join(effect(test) for test in one.tests),
            "threshold": "<br>".join(f"{'>' if test.above else '<'} {test.threshold:g}" for test in one.tests),
            "n": "<br>".join(str(test.n) for test in one.tests),
            "corrected p": "" if np.isnan(one.p) else f"{one.p:.2g}",
            "where": "<br>".join(test.where for test in one.tests),
        }


def effect(test: Evidence) -> str:
    """`1.2 (0.6 to 1.8)`."""
    if np.isnan(test.estimate):
        return "–"
    if np.isnan(test.low) or test.low == test.high:
        return f"{test.estimate:.3g}"
    return f"{test.estimate:.3g} ({test.low:.3g} to {test.high:.3g})"
