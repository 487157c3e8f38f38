"""A statement of the paper, its tests, and how the verdict follows from them.

A *test* compares an effect with a threshold that was fixed before the runs, by one-sided t tests in both directions. A
statement is supported if all of its tests support it, and contradicted if one of them contradicts it. A statement may
be tested twice, with five and with ten seeds, so its p value is twice the smaller of the two. The p values of all
statements are corrected together by Holm's method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
import scipy

from results import stats
from results.study_design import LEVEL, LOOKS, MARGIN

Verdict = Literal["supported", "contradicted", "undecided", "not measured"]


@dataclass(frozen=True)
class Evidence:
    """An effect and its threshold.

    Attributes:
        measure: what the effect is, with its unit.
        where: task, data set and preset.
        estimate: the effect.
        low: lower end of its 95 % interval.
        high: upper end of its 95 % interval.
        n: the number of values.
        threshold: None: the effect is reported but does not enter the verdict.
        above: whether the statement claims that the effect is above the threshold; otherwise below.
        p_yes: one-sided p value for the statement.
        p_no: one-sided p value for its contrary.
        sd: standard deviation of the differences, if the effect is a mean of differences.
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
    """A statement, its tests and its verdict.

    Attributes:
        number: 1 to 10.
        words: what the paper says.
        rule: when it is supported, in words.
        tests: the tests that decide, at the latest look.
        beside: further measurements, which do not decide.
        earlier: the same tests at the first look, if `tests` are those of the second. They decide too.
        verdict: the verdict after the correction.
        p: the corrected p value.
        open: if undecided, the reason.
        cells: the hashes of the cells behind it.
    """

    number: int
    words: str
    rule: str
    tests: tuple[Evidence, ...] = ()
    beside: tuple[Evidence, ...] = ()
    earlier: tuple[Evidence, ...] = ()
    verdict: Verdict = "not measured"
    p: float = np.nan
    open: str = ""
    cells: tuple[str, ...] = ()


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p values by Holm's method. NaN stays NaN but counts as a comparison."""
    values = np.asarray(p, np.float64)
    order = np.argsort(np.where(np.isnan(values), np.inf, values), kind="stable")
    factors = np.arange(len(values), 0, -1)
    running = np.maximum.accumulate(np.where(np.isnan(values[order]), 0.0, values[order] * factors))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, running)
    return [float(q) for q in np.where(np.isnan(values), np.nan, adjusted)]


def p_values(of: Statement) -> tuple[float, float]:
    """Two-sided p values: of support, which needs all tests, and of contradiction, which needs one of them.

    Both are the smallest over the looks, times the number of looks that the design allows.
    """
    looks = [tests for tests in (of.tests, of.earlier) if tests]
    if not looks or any(np.isnan(test.p_yes) for tests in looks for test in tests):
        return np.nan, np.nan
    yes = min(max(test.p_yes for test in tests) for tests in looks)
    no = min(len(tests) * min(test.p_no for test in tests) for tests in looks)
    return min(1.0, 2 * len(LOOKS) * yes), min(1.0, 2 * len(LOOKS) * no)


def concluded(of: Statement, p: float) -> Statement:
    if np.isnan(p):
        return of
    yes, no = p_values(of)
    if p < LEVEL:
        return replace(of, p=p, verdict="supported" if yes <= no else "contradicted")
    weakest = max(of.tests, key=lambda test: min(test.p_yes, test.p_no))
    which = f"{weakest.measure} ({weakest.where}): " if len(of.tests) > 1 else ""
    return replace(of, p=p, verdict="undecided", open=which + _open(weakest))


def _open(test: Evidence) -> str:
    """Why a test is undecided: which difference its seeds can detect, and how many seeds `MARGIN` would need."""
    if not np.isfinite(test.sd):
        return f"the interval includes {test.threshold:g}"
    seen = stats.detectable(test.sd, test.n)
    needed = stats.needed(test.sd, MARGIN)
    more = "more than 1,000" if needed is None else str(needed)
    return f"{test.n} seeds detect a difference of {seen:.2g} with a power of 80 %; {MARGIN:g} needs {more} seeds"


# --- tests ----------------------------------------------------------------------------------------------------------


def of_seeds(measure: str, where: str, effect: pd.Series, threshold: float | None, above: bool = True) -> Evidence:
    """A t test of the mean over seeds; no test with fewer seeds than the design requires."""
    values = effect.dropna().to_numpy(np.float64)
    found = stats.t_interval(values)
    test = Evidence(measure, where, *found[:3], int(found.n), threshold, above)
    if threshold is None or len(values) < LOOKS[0]:
        return test
    sd = float(values.std(ddof=1))
    distance = values.mean() - threshold
    t = distance / (sd / np.sqrt(len(values))) if sd > 0 else np.copysign(np.inf, distance)
    greater = float(scipy.stats.t.sf(t, len(values) - 1)) if distance else 0.5
    yes, no = (greater, 1 - greater) if above else (1 - greater, greater)
    return replace(test, p_yes=yes, p_no=no, sd=sd)


def of_interval(measure: str, where: str, line: pd.Series, threshold: float | None, above: bool = True) -> Evidence:
    """A normal test from a 95 % interval. A counted value, which has no interval, is only compared."""
    value, low, high = (float(line[name]) for name in ("value", "low", "high"))
    test = Evidence(measure, where, value, low, high, int(line["n"]), threshold, above)
    if threshold is None:
        return test
    if np.isnan(low) or low == high:  # counted
        greater = float(value < threshold)
    else:
        half = (high - low) / 2
        greater = float(scipy.stats.norm.sf((value - threshold) / (half / 1.96)))
    yes, no = (greater, 1 - greater) if above else (1 - greater, greater)
    return replace(test, p_yes=yes, p_no=no)


def apart(one: pd.Series, other: pd.Series) -> pd.Series:
    both = pd.concat([one, other], axis=1, join="inner")
    return both.iloc[:, 0] - both.iloc[:, 1]


def lines(statements: Sequence[Statement]) -> Iterator[dict[str, str]]:
    """A line of the table for each statement."""
    for one in statements:
        yield {
            "": str(one.number),
            "statement": one.words,
            "verdict": f"**{one.verdict}**",
            "measured": "<br>".join(test.measure for test in one.tests) or "",
            "effect (95 %)": "<br>".join(effect(test) for test in one.tests),
            "threshold": "<br>".join(f"{'>' if test.above else '<'} {test.threshold:g}" for test in one.tests),
            "n": "<br>".join(str(test.n) for test in one.tests),
            "corrected p": p_text(one.p),
            "where": "<br>".join(test.where for test in one.tests),
        }


def p_text(p: float) -> str:
    """A p value as text: `0.058`, `< 0.001`, or nothing for NaN."""
    if np.isnan(p):
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def effect(test: Evidence) -> str:
    """An effect as text: `1.2 (0.6 to 1.8)`."""
    if np.isnan(test.estimate):
        return "–"
    if np.isnan(test.low) or test.low == test.high:
        return f"{test.estimate:.3g}"
    return f"{test.estimate:.3g} ({test.low:.3g} to {test.high:.3g})"
