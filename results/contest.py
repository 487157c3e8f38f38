"""The contest: the error of a gradient at equal compute, from the rows of the contest suite.

    MSE(C) = bias² + variance · cost / C,    C: compute in plain training steps

For estimators that claim to be unbiased the bias counts as 0 (the tests verify the claim by enumeration on small
spaces; the measured bias is reported too). For others it is the measured one, at least 0. At the crossing C* of an
unbiased (u) and a biased (b) estimator their errors are equal; above it the unbiased one has the smaller error:

    C* = (variance_u cost_u − variance_b cost_b) / bias_b²

C* is 0 if the unbiased one always has the smaller error. Intervals contain 95 % of `DRAWS` draws, in which every
measured value is normal around its estimate.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from results import stats, summary

GRID = 10.0 ** np.arange(0, 5.01, 0.25)
"""Values of C, in plain steps."""
DRAWS = 4000
_KEYS = ["task", *summary.CONTEXT, "part", "point"]
_QUANTITIES = ["mse_variance", "mse_bias_sq"]


class Contestant(NamedTuple):
    """An estimator at one point, for one part of the gradient.

    Attributes:
        estimator: its label.
        name: its name without options.
        unbiased: whether it claims to be unbiased.
        variance: `(value, standard error)`.
        bias: measured squared bias, `(value, standard error)`.
        cost: in plain steps, `(value, standard error)`.
        p: p value for no bias.
        n: number of estimates.
        norm: ‖∇‖², the squared norm of the reference gradient.
        rng: seed of its draws.
    """

    estimator: str
    name: str
    unbiased: bool
    variance: tuple[float, float]
    bias: tuple[float, float]
    cost: tuple[float, float]
    p: float
    n: int
    norm: float
    rng: int

    def draws(self) -> tuple[np.ndarray, np.ndarray]:
        """Draws of bias² and of variance · cost, `(DRAWS,)` each."""
        normal = np.random.default_rng(self.rng).standard_normal((3, DRAWS))
        variance, bias, cost = (
            value + error * z for (value, error), z in zip((self.variance, self.bias, self.cost), normal, strict=True)
        )
        bias = np.zeros(DRAWS) if self.unbiased else np.maximum(bias, 0)
        return bias, np.maximum(variance, 0) * np.maximum(cost, 0)

    @property
    def product(self) -> float:
        """variance · cost: without bias, the error at the compute of one plain step."""
        return self.variance[0] * self.cost[0]

    @property
    def bias_sq(self) -> float:
        """The bias² that enters the error."""
        return 0.0 if self.unbiased else max(self.bias[0], 0.0)

    def error(self, c: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """MSE(C) / ‖∇‖² with the ends of its interval."""
        bias, product = self.draws()
        spread = (bias[:, None] + product[:, None] / c) / self.norm
        low, high = np.quantile(spread, (0.025, 0.975), axis=0)
        return (self.bias_sq + self.product / c) / self.norm, low, high

    def useful_from(self) -> float:
        """The C above which the error is below ½ ‖∇‖² (always answering zero has ‖∇‖²); infinite if never."""
        room = self.norm / 2 - self.bias_sq
        return self.product / room if room > 0 else np.inf


class Crossing(NamedTuple):
    """Where an unbiased estimator overtakes a biased one: C*, its interval and a verdict.

    The verdict is "ahead" if the unbiased one has the smaller error at every C at which one of both errors is below
    ½ ‖∇‖², "behind" if not, and "inconclusive" if neither is certain to 97.5 %.
    """

    value: float
    low: float
    high: float
    verdict: str


def groups(frame: pd.DataFrame) -> Iterator[tuple[dict[str, str], list[Contestant]]]:
    """The contestants of each task, context, part and point."""
    rows = frame[(frame["suite"] == "contest") & (frame["status"] == "ok")]
    if rows.empty:
        return
    rows = summary.pool(rows, [*_KEYS, "x", "estimator", "name", "metric"])
    rows = rows.assign(se=(rows["high"] - rows["low"]) / 2 / 1.96)
    of_point = [*_KEYS[:-2], "point", "estimator"]
    shared = rows[rows["metric"].isin(["mse_cost", "mse_unbiased"])].set_index(["metric", *of_point])[["value", "se"]]
    measured = rows[rows["metric"] == "mse_variance"]
    order = {"logits": 0, "weights": 1, "uniform": 0, "mid": 1, "peaked": 2}
    for keys, here in sorted(measured.groupby(_KEYS), key=lambda pair: [order.get(str(k), 0) for k in pair[0]]):
        where = dict(zip(_KEYS, map(str, keys), strict=True))
        mine = rows[(rows[_KEYS] == pd.Series(where)).all(axis=1)]
        norms = mine[mine["metric"] == "mse_gradient_sq"]
        norm = float(norms["value"].mean())  # logits share one reference; for weights every estimator has its own
        found: list[Contestant] = []
        for label in summary.ordered(here):
            own = mine[mine["estimator"] == label].set_index("metric")
            if not {"mse_variance", "mse_bias_sq", "mse_bias_p"} <= set(own.index):
                continue
            at = tuple([where[key] for key in of_point[:-1]] + [label])
            (variance, bias), cost = own.loc[_QUANTITIES, ["value", "se"]].to_numpy(), shared.loc[("mse_cost", *at)]
            found.append(
                Contestant(
                    label,
                    str(own["name"].iloc[0]),
                    bool(shared.loc[("mse_unbiased", *at), "value"]),
                    (float(variance[0]), float(variance[1])),
                    (float(bias[0]), float(bias[1])),
                    (float(cost["value"]), float(cost["se"])),
                    float(own.loc["mse_bias_p", "value"]),
                    int(own.loc["mse_variance", "n"]),
                    norm,
                    len(found),
                )
            )
        if norm > 0:
            yield where, found


def crossing(unbiased: Contestant, biased: Contestant) -> Crossing:
    """The crossing of two contestants of one group."""
    (_, mine), (bias, other) = unbiased.draws(), biased.draws()
    stars = _star(mine - other, bias)
    value = float(_star(np.array(unbiased.product - biased.product), np.array(biased.bias_sq)))
    low, high = np.quantile(stars, (0.025, 0.975), method="nearest")
    room = biased.norm / 2 - bias
    with np.errstate(divide="ignore"):
        first = np.minimum(2 * mine / unbiased.norm, np.where(room > 0, other / np.where(room > 0, room, 1), np.inf))
    ahead = float((stars <= first).mean())
    verdict = "ahead" if ahead >= 0.975 else "behind" if ahead <= 0.025 else "inconclusive"
    return Crossing(value, float(low), float(high), verdict)


def _star(excess: np.ndarray, bias: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(excess <= 0, 0.0, np.where(bias > 0, excess / np.where(bias > 0, bias, 1), np.inf))


def errors_table(found: list[Contestant]) -> pd.DataFrame:
    """One line per contestant: the parts of its error and the error at several C, in units of ‖∇‖²."""
    grid = np.array([10.0, 100.0, 1000.0, 1e4])
    zero = {"estimator": "zero", "cost, plain steps": "0", "variance / ‖∇‖²": "0", "variance × cost": "0"}
    zero |= {"measured bias²": "1", "error < ½ from C": _number(np.inf), **{f"error at C = {c:g}": "1" for c in grid}}
    lines = []
    for one in found:
        value, low, high = one.error(grid)
        relative = f"{one.bias[0] / one.norm:.2g} ± {1.96 * one.bias[1] / one.norm:.1g} (p = {one.p:.2g})"
        lines.append(
            {
                "estimator": one.estimator,
                "claims": "unbiased" if one.unbiased else "",
                "cost, plain steps": f"{one.cost[0]:.2f} ± {1.96 * one.cost[1]:.2f}",
                "variance / ‖∇‖²": f"{one.variance[0] / one.norm:.3g} ± {1.96 * one.variance[1] / one.norm:.2g}",
                "variance × cost": f"{one.product / one.norm:.3g}",
                "measured bias²": relative,
                "error < ½ from C": _number(one.useful_from()),
                **{
                    f"error at C = {c:g}": f"{v:.2g} ({a:.2g}–{b:.2g})"
                    for c, v, a, b in zip(grid, value, low, high, strict=True)
                },
            }
        )  # fmt: skip
    return pd.DataFrame([*lines, zero]).fillna("")


def crossings_table(found: list[Contestant]) -> pd.DataFrame:
    """One line per unbiased estimator, one column per biased one: C* (its interval), and the verdict."""
    lines = []
    for one in (c for c in found if c.unbiased):
        line = {"estimator": one.estimator}
        for other in (c for c in found if not c.unbiased):
            star = crossing(one, other)
            line[other.estimator] = f"{_number(star.value)} ({_number(star.low)}–{_number(star.high)}), {star.verdict}"
        lines.append(line)
    return pd.DataFrame(lines)


def descents_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Gains from optimising φ alone in equal time: steps, gain, and the difference from the best, paired by run."""
    gains = summary.measured(frame, "descent_gain", suite="contest")
    if gains.empty:
        return pd.DataFrame()
    made = summary.measured(frame, "descent_steps", suite="contest")
    steps = made.groupby(["task", *summary.CONTEXT, "estimator"])["value"].mean()
    lines = []
    for keys, here in gains.groupby(["task", *summary.CONTEXT]):
        wide = here.pivot_table(index="x", columns="estimator", values="value")
        errors = here.groupby("estimator")["se"].mean()
        best = str(wide.mean().idxmax())
        for name in wide.mean().sort_values(ascending=False).index:
            mean = stats.t_interval(wide[name].dropna().to_numpy())
            line = {
                "task": keys[0], "estimator": name, "steps": f"{steps[(*keys, name)]:.0f}",
                "gain, nats": f"{mean.estimate:.4f}", "runs": ", ".join(f"{v:.4f}" for v in wide[name]),
                "standard error of one": f"{errors[name]:.4f}", "behind the best": "",
            }  # fmt: skip
            if name != best and len(both := wide[[best, name]].dropna()) > 1:
                d = stats.paired(both[best], both[name])
                line["behind the best"] = f"{d.estimate:.4f} ({d.low:.4f} to {d.high:.4f})"
            lines.append(line)
    return pd.DataFrame(lines)


def _number(value: float) -> str:
    return "∞" if np.isinf(value) else f"{value:.0f}" if value >= 100 else f"{value:.2g}"
