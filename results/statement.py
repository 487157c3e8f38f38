"""A statement of the paper, its tests, and how the verdict follows from them.

A *test* compares an effect with a threshold that was fixed before the runs, by one-sided t tests in both directions. A
statement is supported if all of its tests support it, and contradicted if one of them contradicts it. A statement may
be tested twice, with five and with ten seeds, so its p value is twice the smaller of the two. The p values of all
statements are corrected together by Holm's method. What stays open may be decided by a replication with fresh seeds,
whose p values are corrected among themselves.
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
        replication: the first test again, with fresh seeds; None if the design has no replication of it.
        verdict: the verdict after the correction.
        p: the corrected p value.
        p_replication: the corrected p value of the replication.
        open: if undecided, the reason.
        cells: the hashes of the cells behind it.
    """

    number: int
    words: str
    rule: str
    tests: tuple[Evidence, ...] = ()
    beside: tuple[Evidence, ...] = ()
    earlier: tuple[Evidence, ...] = ()
    replication: Evidence | None = None
    verdict: Verdict = "not measured"
    p: float = np.nan
    p_replication: float = np.nan
    open: str = ""
    cells: tuple[str, ...] = ()

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """All effects, those that decide first."""
        again = () if self.replication is None else (self.replication,)
        return tuple(dict.fromkeys((*self.tests, *again, *self.earlier, *self.beside)))  # a test may be of both looks


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


def replicated(found: Sequence[Statement]) -> list[Statement]:
    """The statements, after the replication has decided what it can of those that are open.

    It is one test of a statement. So it can contradict any statement, but support only those that have no other test.
    """
    again = [one.replication for one in found if one.replication is not None]
    adjusted = iter(holm([2 * min(test.p_yes, test.p_no) for test in again]))
    return [one if one.replication is None else _replicated(one, next(adjusted)) for one in found]


def _replicated(of: Statement, p: float) -> Statement:
    test = of.replication
    assert test is not None
    of = replace(of, p_replication=p)
    yes = test.p_yes < test.p_no
    if of.verdict != "undecided" or not p < LEVEL or (yes and len(of.tests) > 1):
        return of
    return replace(of, verdict="supported" if yes else "contradicted", open="")


def _open(test: Evidence) -> str:
    """Why a test is undecided: which distance from its threshold its seeds detect, and how many seeds `MARGIN` needs.

    The level accounts for the two looks, but not for the correction for ten statements.
    """
    if not np.isfinite(test.sd):
        return f"the interval includes {test.threshold:g}"
    level = 1 - LEVEL / len(LOOKS)
    seen = stats.detectable(test.sd, test.n, level=level)
    needed = stats.needed(test.sd, MARGIN, level=level)
    more = "more than 1,000" if needed is None else str(needed)
    return (
        f"{test.n} seeds detect a distance of {seen:.2g} from the threshold with a power of 80 %, before the correction"
        f" for ten statements; {MARGIN:g} needs {more} seeds"
    )


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
        greater = 0.5 if value == threshold else float(value < threshold)
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
        again = one.replication
        tests = one.tests if again is None or again.threshold is None else (*one.tests, again)
        yield {
            "": str(one.number),
            "statement": one.words,
            "verdict": f"**{one.verdict}**",
            "measured": "<br>".join(test.measure for test in tests),
            "effect (95 %)": "<br>".join(effect(test) for test in tests),
            "threshold": "<br>".join(limit(test) for test in tests),
            "n": "<br>".join(str(test.n) for test in tests),
            "corrected p": p_of(one).replace("; ", "<br>"),
            "where": "<br>".join(test.where for test in tests),
        }


def limit(test: Evidence) -> str:
    """The threshold of a test as text: `< 0.5`, or nothing."""
    return "" if test.threshold is None else f"{'>' if test.above else '<'} {test.threshold:g}"


def p_of(one: Statement) -> str:
    """The corrected p values of a statement as text: `0.19; replication: 0.02`, or the first alone."""
    again = p_text(one.p_replication)
    return f"{p_text(one.p)}; replication: {again}" if again else p_text(one.p)


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
