"""VMO beside its rivals: a table and two figures of networks of about equal MACs.

The cost of a run is its multiply-accumulates (MACs), as a multiple of those of a plain run. Wall times of runs are not
compared, because they depend on what else the machine did. Where the cost comes from:

    plain             1
    Concrete          1: soft masks on the full network
    random            the expected MACs of widths that are uniform on the grid, as a fraction of the full network's
    uniform, scratch  the MACs of the network as a fraction of the full network's; the run that learned it not included
    sweep             the MACs of a step with q held at half of the width, from the overhead suite
    rivals            the row `training_cost` of the run

Means are over the seeds of the part `rivals`, although some of its arms have more runs in other parts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results import drawing, labels, palette, reading, statement, stats, study, words
from results.study_design import COST, EPOCHS, PAPER, PRESET, RIVALS, SWEEP, Arm, rivals

FIXED = {"plain": 1.0, PAPER: 1.0, "random": 0.587}
"""Costs that follow from the design."""
BATCHES = (1, 128)
"""The sizes of the minibatches that are timed."""
LINES = {"plain": "--", "l0_arm": (0, (1, 1)), "pruned": "-.", "slimmable": (0, (6, 2))}
"""Where colours are alike."""
PRUNED_AT = 0.5  # the default of `pruned`: until then it trains the full network


def measured(frame: pd.DataFrame, dataset: str) -> Mapping[str, Arm]:
    """The arms that have runs, by name; empty without a run of a rival."""
    arms = rivals(dataset)
    if not any(len(_values(frame, arms[name])) for name in RIVALS):
        return {}
    return {name: one for name, one in arms.items() if len(_values(frame, one))}


def table(frame: pd.DataFrame, dataset: str = "cifar10_16") -> pd.DataFrame | None:
    """One line per method: accuracy, the paired difference to VMO, size and cost; None without a run of a rival."""
    arms = measured(frame, dataset)
    if not arms:
        return None
    reference = _values(frame, rivals(dataset)["VMO: sweep, weights on the mode"])
    costs = _costs(frame, arms)
    lines = []
    for name, one in arms.items():
        accuracy = _values(frame, one)
        lines.append(
            {
                "network": name,
                "test accuracy, %": stats.plus_minus(accuracy, 2),
                "minus VMO by sweep, points": ""
                if one.estimator == SWEEP
                else stats.plus_minus(statement.apart(accuracy, reference), 2),
                "MACs, %": f"{100 * _values(frame, one, 'macs_ratio', None).mean():.1f}",
                "parameters": f"{_values(frame, one, 'parameters', None).mean():,.0f}",
                **{
                    f"time of {batch}": "1"
                    if one.estimator == "plain"
                    else stats.plus_minus(_times(frame, one, batch), 2)
                    for batch in BATCHES
                },
                "training MACs, plain runs": f"{costs[name]:.2f}" if name in costs else "",
                "seeds": f"{len(accuracy)}",
            }
        )
    return pd.DataFrame(lines)


def figure(frame: pd.DataFrame, dataset: str = "cifar10_16") -> Figure | None:
    """Test accuracy against the cost of training, with the line of the best accuracy up to a cost."""
    arms = dict(measured(frame, dataset))
    costs = _costs(frame, arms)
    plain = arms.pop("plain network", None)
    arms = {name: one for name, one in arms.items() if name in costs and not one.estimator.startswith("scratch")}
    if plain is None or not arms:
        return None
    found = {name: (costs[name], _values(frame, one)) for name, one in arms.items()}
    with drawing.style():
        drawn, axes = drawing.grid(1, 1, 4.2)
        ax = axes[0, 0]
        named = []
        for name, (cost, accuracy) in found.items():
            look = palette.Look(arms[name].estimator, arms[name].estimator.partition("[")[0])
            mean, low, high, _ = stats.t_interval(accuracy)
            ax.scatter(np.full(len(accuracy), cost), accuracy, s=12, color=look.colour, alpha=0.45, lw=0)
            drawing.errors(ax, look, cost, (mean, low, high))
            named.append(labels.Named(ax, cost, mean, name, look.ink))
        ax.set_xlim(0, 1.04 * max(1.0, *(cost for cost, _ in found.values())))
        _pareto(ax, [(cost, float(accuracy.mean())) for cost, accuracy in found.values()])
        level = float(_values(frame, plain).mean())
        ax.axhline(level, color=drawing.MUTED, lw=1.0, ls=(0, (4, 3)), zorder=1)
        ax.annotate(
            "plain network, all MACs", (1, level), (0, 3), xycoords=ax.get_yaxis_transform(),
            textcoords="offset points", ha="right", color=drawing.MUTED, fontsize=labels.SIZE,
        )  # fmt: skip
        ax.set(xlabel="training MACs, plain runs", ylabel="test accuracy, %")
        n = drawing.counts(pd.Series([len(accuracy) for _, accuracy in found.values()]))
        drawing.title(
            drawn,
            "VMO and other ways to a network of half the MACs",
            f"Width task, {words.dataset(dataset)}, WRN-16-1, {EPOCHS} epochs",
            f"{n} seeds",
            "large: mean with 95 % t interval",
        )
        labels.at_points(drawn, named)
    return drawn


def training(frame: pd.DataFrame, dataset: str = "cifar10_16") -> Figure | None:
    """Test accuracy along training, against the cost until then. Without the networks that nothing chooses."""
    arms = dict(measured(frame, dataset))
    costs = _costs(frame, arms)
    arms = {
        name: one for name, one in arms.items() if name in costs and not one.estimator.startswith(("scratch", "random"))
    }
    curves = {name: 100 * _seeds(study.curve(frame, one, "curve_accuracy"), one) for name, one in arms.items()}
    curves = {name: curve for name, curve in curves.items() if len(curve)}
    if len(curves) < 2:
        return None
    with drawing.style():
        drawn, axes = drawing.grid(1, 1, 4.4)
        ax = axes[0, 0]
        named = []
        for name, curve in curves.items():
            plain = arms[name].estimator == "plain"
            look = palette.Look(arms[name].estimator, arms[name].estimator.partition("[")[0])
            colour, ink = (drawing.MUTED, drawing.MUTED) if plain else (look.colour, look.ink)
            mean = curve.mean()
            x = _spent(arms[name], costs[name], np.asarray(mean.index, float) / EPOCHS)
            line = LINES.get(arms[name].estimator, "-")
            ax.plot(x, mean, look.marker, ls=line, color=colour, lw=1.6, ms=4, mew=0)
            named.append(labels.Named(ax, x[-1], mean.iloc[-1], name, ink))
        low = min(float(curve.mean().iloc[len(curve.columns) // 2 :].min()) for curve in curves.values())
        high = max(float(curve.mean().max()) for curve in curves.values())
        ax.set_ylim(low - 0.05 * (high - low), high + 0.08 * (high - low))
        ax.set_xlim(0, 1.04 * max(costs[name] for name in curves))
        ax.set(xlabel="training MACs so far, plain runs", ylabel="test accuracy, %")
        n = drawing.counts(pd.Series([len(curve) for curve in curves.values()]))
        drawing.title(
            drawn,
            "What each method has reached for the MACs that it has spent",
            f"Width task, {words.dataset(dataset)}, WRN-16-1, {EPOCHS} epochs; mean of {n} seeds",
        )
        labels.at_points(drawn, named)
    return drawn


def _spent(of: Arm, cost: float, share: np.ndarray) -> np.ndarray:
    """The cost of the first part of a run, for shares of its epochs."""
    if of.estimator != "pruned":
        return cost * share
    later = (cost - PRUNED_AT) / (1 - PRUNED_AT)  # of a whole run with the small network
    return np.minimum(share, PRUNED_AT) + later * np.clip(share - PRUNED_AT, 0, None)


def _seeds(found: pd.DataFrame | pd.Series, one: Arm) -> Any:
    """Only the seeds that the part `rivals` asks for."""
    return found[found.index < one.seeds]


def _values(frame: pd.DataFrame, one: Arm, metric: str = "accuracy", part: str | None = "test") -> pd.Series:
    """See `study.values`; only of the seeds of the part."""
    return _seeds(study.values(frame, one, metric, part), one)


def _times(frame: pd.DataFrame, one: Arm, batch: int) -> pd.Series:
    """By seed, the time of a minibatch as a multiple of that of the full network."""
    found = _seeds(study.runs(frame, one, "latency").set_index("seed"), one)
    return found.loc[(found["metric"] == "latency_ratio") & (found["x"] == batch), "value"]


def _costs(frame: pd.DataFrame, arms: Mapping[str, Arm]) -> dict[str, float]:
    """The cost of a run of each arm, where it is known."""
    found = {}
    for name, one in arms.items():
        if one.estimator in FIXED:
            values = pd.Series([FIXED[one.estimator]])
        elif one.estimator.startswith(("scratch", "uniform")):
            values = _values(frame, one, "macs_ratio", None)
        elif one.estimator == COST.estimator:
            values = _of_step(frame, COST)
        else:
            values = _values(frame, one, "training_cost", None)
        if len(values):
            found[name] = float(values.mean())
    return found


def _of_step(frame: pd.DataFrame, of: Arm) -> pd.Series:
    """The MACs of a training step in plain steps, with q held at half of the width."""
    rows = frame[(frame["suite"] == "overhead") & (frame["task"] == of.task) & (frame["estimator"] == of.estimator)]
    rows = rows[(rows["metric"] == "macs_ratio_held") & (rows["x"] == 0.5) & (rows["preset_name"] == PRESET)]
    wanted = [(*key.split("."), value) for key, value in of.changed.items()]
    alike = [
        all(str(handed[group][name]) == value for group, name, value in wanted)
        for handed in map(json.loads, rows["settings"])
    ]
    found = rows[pd.Series(alike, rows.index, bool)].drop_duplicates("hash")
    reading.note(found["hash"])
    return found["value"]


def _pareto(ax: Axes, points: list[tuple[float, float]]) -> None:
    """A staircase through the points that no cheaper point exceeds."""
    best: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or value > best[-1][1]:
            best.append((cost, value))
    x, y = zip(*best, (ax.get_xlim()[1], best[-1][1]), strict=True)
    ax.step(x, y, where="post", color=palette.CONTEXT, lw=1.4, zorder=1)
