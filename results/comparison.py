"""The result of a comparison of estimators on a user's objective: a table, a recommendation with its reason, a figure.

With a budget of C, C / cost estimates can be averaged. The error of their mean is

    error(C) = bias² + variance · cost / C.

C and the cost of one estimate are in evaluations. One evaluation is the time of f by hand, forward and backward. The
bias of an estimator that is unbiased by proof counts as 0. Other biases are those that were measured. Intervals are
95 % intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tabulate import tabulate

from results import drawing, labels, palette
from results.contest import GRID, Contestant, crossing
from results.stats import SquaredNorm, adjust

BUDGET = 100.0
"""The budget, in evaluations, at which estimators are ranked by default."""
SERIES = 8
"""The largest number of curves in the figure."""
LEGEND = (
    "* no significant difference from the best. ∂f/∂z: whether it needs the slope of f. time, memory: of one\n"
    "estimate. cost: its time, in evaluations. bias², variance, error: in units of ‖∇‖². ±: half of a 95 % interval."
)
DOUBT = 0.025
"""An estimator is as good as the best if it has the smaller error in more than this fraction of all draws."""


@dataclass(frozen=True)
class Measured:
    """What was measured of an estimator, except its error.

    Attributes:
        status: "ok", or why it was not measured.
        unbiased: whether it claims to be unbiased.
        slopes: whether it needs ∂f/∂sample: "no", "yes", "yes, f has some" (in some categoricals) or
            "yes, f has none".
        evaluations: evaluations of f in one estimate.
        seconds: time of one estimate.
        bytes: peak memory that one estimate allocates.
        adapted: number of steps for which it adapted.
    """

    status: str
    unbiased: bool
    slopes: str
    evaluations: float
    seconds: float
    bytes: int
    adapted: int


@dataclass(frozen=True)
class Comparison:
    """Estimators measured on one objective.

    Attributes:
        problem: the objective, in words.
        truth: how the true gradient was computed, in words.
        unit: seconds of one evaluation.
        seconds: time of the whole comparison.
        measured: what was measured, by label, in the order in which estimators were named.
        parts: "logits" and "weights", if they were measured; for each, the parts of the error by label.
        norms: for each part ‖∇‖², by which errors are divided, and its estimate. ‖∇‖² is 1 if it is not significantly
            different from 0. The estimate is None if ‖∇‖² is exact and not 0.
        notes: further remarks, one sentence each.
    """

    problem: str
    truth: str
    unit: float
    seconds: float
    measured: Mapping[str, Measured]
    parts: Mapping[str, Mapping[str, Contestant]]
    norms: Mapping[str, tuple[float, SquaredNorm | None]]
    notes: list[str]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One line per part and estimator, by rank. Those that were not measured are last, with the reason as `status`.

        `bias_sq`, `variance` and `error` (at `BUDGET`) are in units of ‖∇‖², which is `gradient_sq`. `cost` is in
        evaluations. `_low` and `_high` are the ends of intervals. `bias_p` is the p value for no bias, adjusted for all
        estimators (Benjamini, Hochberg). `rank` is by `error`. It is missing if one estimate costs more than `BUDGET`.
        """
        return pd.DataFrame([line for part in self.parts for line in self._lines(part)])

    @cached_property
    def crossings(self) -> pd.DataFrame:
        """The budget at which the errors of an unbiased and a biased estimator are equal; one line per part and pair.

        From `budget` on, in evaluations, the unbiased one has the smaller error: 0 if it has so at once, infinite if
        never. `low` and `high` are the ends of its interval.
        """
        lines = []
        for part, here in self.parts.items():
            biased = [one for one in here.values() if not one.unbiased]
            for one in (one for one in here.values() if one.unbiased):
                for other in biased:
                    star = crossing(one, other)
                    line = {"part": part, "unbiased": one.estimator, "biased": other.estimator}
                    lines.append({**line, "budget": star.value, "low": star.low, "high": star.high})
        return pd.DataFrame(lines, columns=["part", "unbiased", "biased", "budget", "low", "high"])

    def best(self, budget: float = BUDGET, *, unbiased: bool = False, part: str | None = None) -> str:
        """The label with the smallest error at a budget in evaluations. `unbiased`: only among unbiased estimators.

        Raises:
            ValueError: one estimate of every estimator costs more than the budget.
        """
        return self._ranked(budget, unbiased, part)[0]

    def as_good(self, budget: float = BUDGET, *, unbiased: bool = False, part: str | None = None) -> list[str]:
        """The labels whose error at a budget is not significantly different from the smallest one, ordered by error."""
        first, *others = self._ranked(budget, unbiased, part)
        here = self._of(part)
        best = _errors(here[first], budget)
        return [label for label in others if float((_errors(here[label], budget) <= best).mean()) > DOUBT]

    def recommendation(self, budget: float = BUDGET) -> str:
        """Which estimator to take at a budget, and the reason, in a few sentences."""
        here = self.parts[self._first]
        cheapest = min(here.values(), key=lambda one: one.cost[0])
        if cheapest.cost[0] > budget:
            costs = f"the cheapest, {cheapest.estimator}, costs {cheapest.cost[0]:.3g}"
            return f"A budget of {budget:g} evaluations is less than one estimate of any estimator costs; {costs}."
        label = self.best(budget)
        best = here[label]
        value, low, high = (float(x[0]) for x in best.error(np.array([budget])))
        said = [
            f"Take {label}: at a budget of {budget:g} evaluations it has the smallest error, {value:.2g} "
            f"({low:.2g} to {high:.2g}){'' if self._absolute else ' of ‖∇‖²'}.",
            f"It is {'unbiased' if best.unbiased else 'biased'}.",
        ]
        if value == 0:
            said = [f"Take {label}: it has no error, at the cost of {best.cost[0]:.2g} evaluations."]
        if equal := self.as_good(budget):
            said.append(f"No significant difference from: {', '.join(equal)}.")
            fastest = min([label, *equal], key=lambda one: self.measured[one].seconds)
            if fastest != label:
                said.append(f"The cheapest of these is {fastest}.")
        if not best.unbiased and (others := self._unbiased()):
            rival = min(others, key=lambda one: one.product)
            star = crossing(rival, best)
            said.append(_crossing(rival.estimator, label, star.value, star.low, star.high))
        if value > 0.5 and not self._absolute:
            need = min(max(one.useful_from(), one.cost[0]) for one in here.values())
            said.append("At this budget every error is above half of ‖∇‖².")
            if np.isfinite(need):
                said.append(f"With {need:,.0f} evaluations the first of them falls below that.")
        return " ".join(said)

    def __str__(self) -> str:
        norm, estimate = self.norms[self._first]
        known = "" if estimate is None else f" ± {1.96 * estimate.se:.1g}"
        size = f"‖∇‖² = {norm:.3g}{known}"
        if self._absolute:
            what = "not significantly different from 0" if estimate and estimate.se else "0"
            size = f"it is {what}, so that bias², variance and error are absolute"
        parts = [
            f"{self.problem}. True gradient: {self.truth}; {size}.",
            f"One evaluation of f, forward and backward: {_time(self.unit)}. The comparison took {self.seconds:.0f} s.",
        ]
        for part in self.parts:
            parts += ["", f"Gradient of the {part}, by error at C = {BUDGET:g} evaluations:", "", self._table(part)]
        parts += ["", self.recommendation()]
        parts += ["", LEGEND]
        if suspects := self._suspects():
            parts.append(
                f"These estimators are unbiased by proof but show a bias: {', '.join(suspects)}. Either f does not "
                "return one value per sample that depends on that sample alone, or a few estimates are very large."
            )
        missing = {label: one.status for label, one in self.measured.items() if one.status != "ok"}
        for status in dict.fromkeys(missing.values()):
            parts.append(f"{', '.join(label for label, why in missing.items() if why == status)}: {status}")
        return "\n".join([*parts, *self.notes])

    def plot(self, path: str | Path | None = None, part: str | None = None) -> Figure:
        """The error against C, of the `SERIES` estimators with the smallest errors at some C. Dashed: biased.

        Args:
            path: save the figure there; the ending of the name sets the format.
            part: "logits" or "weights"; by default the first that was measured.
        """
        here = self._of(part)
        shown = _shown(here)
        with drawing.style():
            figure, axes = drawing.grid(1, 1, 4.6)
            ax = axes[0, 0]
            named = []
            for one in shown:
                look = palette.Look(one.estimator, one.name)
                value, low, high = one.error(GRID)
                can = one.cost[0] <= GRID
                ax.plot(GRID[can], value[can], color=look.colour, lw=1.8, ls="-" if one.unbiased else "--")
                ax.fill_between(GRID[can], low[can], high[can], color=look.colour, alpha=0.12, lw=0)
                named.append(labels.Named(ax, GRID[-1], float(value[-1]), one.estimator, look.ink))
            ax.set(xscale="log", yscale="log", xlim=GRID[[0, -1]])
            ax.set(xlabel="compute C, evaluations of f", ylabel="error / ‖∇‖²")
            drawing.title(
                figure,
                "Error of the gradient at equal compute",
                f"{self.problem}; 95 % intervals; solid: unbiased, dashed: biased; the {len(shown)} of {len(here)} "
                "estimators with the smallest errors",
            )
            labels.at_ends(figure, named)
        if path is not None:
            figure.savefig(path)
        return figure

    @property
    def _first(self) -> str:
        return next(iter(self.parts))

    @property
    def _absolute(self) -> bool:
        """Whether the gradient is not significantly different from 0, and errors are not divided by it."""
        _, estimate = self.norms[self._first]
        return estimate is not None and estimate.value <= 2 * estimate.se

    def _unbiased(self) -> list[Contestant]:
        return [one for one in self.parts[self._first].values() if one.unbiased]

    def _suspects(self) -> list[str]:
        here = self.frame[self.frame["part"] == self._first]
        wrong = here["unbiased"].astype(bool) & (here["bias_p"] < 0.01)
        return here["estimator"][wrong].tolist()

    def _of(self, part: str | None) -> Mapping[str, Contestant]:
        """What is known of a part, or of the first. Raises ValueError if it was not measured."""
        if part is not None and part not in self.parts:
            raise ValueError(f"the gradient of {part!r} was not measured, only that of {', '.join(self.parts)}")
        return self.parts[part or self._first]

    def _ranked(self, budget: float, unbiased: bool = False, part: str | None = None) -> list[str]:
        here = self._of(part).values()
        able = [one for one in here if one.cost[0] <= budget and (one.unbiased or not unbiased)]
        if not able:
            raise ValueError(f"a budget of {budget:g} evaluations is less than one estimate of any estimator costs")
        return [one.estimator for one in sorted(able, key=lambda one: one.bias_sq + one.product / budget)]

    def _lines(self, part: str) -> list[dict[str, object]]:
        here = self.parts[part]
        norm, _ = self.norms[part]
        cheap = any(one.cost[0] <= BUDGET for one in here.values())
        ranked = self._ranked(BUDGET, part=part) if cheap else []
        order = [*ranked, *(label for label in here if label not in ranked)]
        order += [label for label in self.measured if label not in here]
        p = dict(zip(here, adjust([one.p for one in here.values()]), strict=True))
        lines = []
        for label in order:
            one = self.measured[label]
            line: dict[str, object] = {"part": part, "estimator": label, "status": one.status, "unbiased": one.unbiased}
            line |= {"needs_slopes": one.slopes, "evaluations": one.evaluations, "milliseconds": 1e3 * one.seconds}
            line |= {"bytes": one.bytes, "adapted": one.adapted, "gradient_sq": norm}
            if (of := here.get(label)) is not None:
                value, low, high = (float(x[0]) for x in of.error(np.array([BUDGET])))
                line |= {"n": of.n, "bias_p": float(p[label])}
                for name, (mean, se) in (("cost", of.cost), ("bias_sq", of.bias), ("variance", of.variance)):
                    scale = 1.0 if name == "cost" else norm
                    ends = (mean, mean - 1.96 * se, mean + 1.96 * se)
                    line |= dict(zip((name, f"{name}_low", f"{name}_high"), (x / scale for x in ends), strict=True))
                line |= {"error": value, "error_low": low, "error_high": high}
                line["rank"] = ranked.index(label) + 1 if label in ranked else None
            lines.append(line)
        return lines

    def _table(self, part: str) -> str:
        here = self.frame[(self.frame["part"] == part) & (self.frame["status"] == "ok")]
        equal: set[str] = set()
        if here["rank"].notna().any():
            equal = {self.best(part=part), *self.as_good(part=part)}
        lines = []
        for row in here.itertuples():
            lines.append(
                {
                    "": "*" if row.estimator in equal else "",
                    "estimator": row.estimator,
                    "unbiased": "yes" if row.unbiased else "no",
                    "∂f/∂z": row.needs_slopes,
                    "time": _time(row.milliseconds / 1e3),
                    "memory": _bytes(row.bytes),
                    "cost": f"{row.cost:.2g}",
                    "bias²": _bias(row),
                    "variance": _pm(row.variance, row.variance_high),
                    "error": _interval(row) if pd.notna(row.rank) else "over budget",
                }
            )  # fmt: skip
        return str(tabulate(lines, headers="keys", disable_numparse=True))


def _errors(one: Contestant, budget: float) -> np.ndarray:
    bias, product = one.draws()
    return bias + product / budget


def _shown(here: Mapping[str, Contestant]) -> list[Contestant]:
    """The estimators with the smallest error at some C first, then the second smallest, and so on."""
    able = np.array([[c >= one.cost[0] for c in GRID] for one in here.values()])
    errors = np.where(able, [one.error(GRID)[0] for one in here.values()], np.inf)
    errors[errors == 0] = np.inf  # no place on a logarithmic axis
    ranks = np.where(np.isfinite(errors), errors.argsort(0).argsort(0), len(errors)).min(1)
    order = sorted(range(len(ranks)), key=lambda i: (ranks[i], float(np.min(errors[i]))))
    everyone = list(here.values())
    return [everyone[i] for i in order[:SERIES] if np.isfinite(errors[i]).any()]


def _crossing(unbiased: str, biased: str, value: float, low: float, high: float) -> str:
    if not np.isfinite(value):
        return f"Its bias is too small to be measured here. The best unbiased one is {unbiased}."
    at = f"{_count(value)} evaluations ({_count(low)} to {_count(high)})"
    if value == 0:
        return f"The best unbiased one, {unbiased}, has the smaller error as soon as the budget pays for it."
    return f"From {at} on, the best unbiased one, {unbiased}, has the smaller error."


def _count(value: float) -> str:
    return "∞" if np.isinf(value) else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _interval(row: Any) -> str:
    return "0" if row.error_high == 0 else f"{row.error:.2g} ({row.error_low:.2g}–{row.error_high:.2g})"


def _bias(row: Any) -> str:
    """The measured value, or an upper bound if it is not significantly different from 0."""
    half = row.bias_sq_high - row.bias_sq
    if row.bias_p < 0.05:
        return _pm(row.bias_sq, row.bias_sq_high)
    return f"< {max(row.bias_sq_high, half):.1g}" if half > 0 else "0"


def _pm(value: float, high: float) -> str:
    """The value, with as many digits as its interval justifies."""
    half = high - value
    if not half > 0:
        return f"{value:.3g}"
    digits = max(0, -math.floor(math.log10(half)))
    return f"{value:.{digits}f} ± {half:.{digits}f}" if digits < 5 else f"{value:.1e} ± {half:.0e}"


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"
