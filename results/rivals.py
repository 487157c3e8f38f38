"""VMO beside its rivals: a table and a figure of networks of about equal MACs.

Training time is the wall time of a run, divided by the median over seeds of that of the plain network. It depends on
what else the machine did. Pauses are not part of it: of a run that was resumed, only the time since then is known.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results import drawing, labels, palette, stats, study
from results.study_design import EPOCHS, RIVALS, SWEEP, Arm, arm, rivals

SHOWN = 8
"""Most points of the figure; the networks that are trained alone come last."""


def measured(frame: pd.DataFrame, dataset: str) -> Mapping[str, Arm]:
    """The arms that have runs, by name; empty without a run of a rival."""
    arms = rivals(dataset)
    if not any(len(study.values(frame, arms[name])) for name in RIVALS):
        return {}
    return {name: one for name, one in arms.items() if len(study.values(frame, one))}


def table(frame: pd.DataFrame, dataset: str = "cifar10_16") -> pd.DataFrame | None:
    """One line per method: accuracy, the paired difference to VMO, size and cost; None without a run of a rival."""
    arms = measured(frame, dataset)
    if not arms:
        return None
    reference = study.values(frame, arm(SWEEP, "mode", dataset=dataset))
    times = _times(frame, arms)
    lines = []
    for name, one in arms.items():
        accuracy = study.values(frame, one)
        cost = study.values(frame, one, "training_cost", None)
        lines.append(
            {
                "network": name,
                "test accuracy, %": _interval(accuracy, 2),
                "minus VMO by sweep, points": "" if one.estimator == SWEEP else _difference(accuracy, reference),
                "MACs, %": f"{100 * study.values(frame, one, 'macs_ratio', None).mean():.1f}",
                "parameters": f"{study.values(frame, one, 'parameters', None).mean():,.0f}",
                "training time, plain runs": f"{times[name].median():.2f}" if name in times else "",
                "training MACs, plain runs": f"{cost.mean():.2f}" if len(cost) else "",
                "seeds": f"{len(accuracy)}",
            }
        )
    return pd.DataFrame(lines)


def figure(frame: pd.DataFrame, dataset: str = "cifar10_16") -> Figure | None:
    """Test accuracy against training time, with the line of the best accuracy up to a time."""
    arms = dict(measured(frame, dataset))
    times = _times(frame, arms)
    plain = arms.pop("plain network", None)
    arms = {name: one for name, one in arms.items() if name in times and not one.estimator.startswith("scratch")}
    arms = dict(list(arms.items())[:SHOWN])
    if plain is None or not arms:
        return None
    found = {name: (float(times[name].median()), study.values(frame, one)) for name, one in arms.items()}
    with drawing.style():
        drawn, axes = drawing.grid(1, 1, 4.2)
        ax = axes[0, 0]
        named = []
        for name, (time, accuracy) in found.items():
            look = palette.Look(arms[name].estimator, arms[name].estimator.partition("[")[0])
            mean, low, high, _ = stats.t_interval(accuracy)
            ax.scatter(np.full(len(accuracy), time), accuracy, s=12, color=look.colour, alpha=0.45, lw=0)
            drawing.errors(ax, look, time, (mean, low, high))
            named.append(labels.Named(ax, time, mean, name, look.ink))
        ax.set_xlim(0, 1.04 * max(time for time, _ in found.values()))
        _pareto(ax, [(time, float(accuracy.mean())) for time, accuracy in found.values()])
        level = float(study.values(frame, plain).mean())
        ax.axhline(level, color=drawing.MUTED, lw=1.0, ls=(0, (4, 3)), zorder=1)
        ax.annotate(
            "plain network, all MACs", (1, level), (0, 3), xycoords=ax.get_yaxis_transform(),
            textcoords="offset points", ha="right", color=drawing.MUTED, fontsize=labels.SIZE,
        )  # fmt: skip
        ax.set(xlabel="training time, plain runs", ylabel="test accuracy, %")
        n = drawing.counts(pd.Series([len(accuracy) for _, accuracy in found.values()]))
        drawing.title(
            drawn,
            "VMO and other ways to a network of half the MACs",
            f"Width task, {dataset}, WRN-16-1, {EPOCHS} epochs; {n} seeds; large: mean with 95 % t interval; "
            "line: best mean up to a training time",
        )
        labels.at_points(drawn, named)
    return drawn


def _times(frame: pd.DataFrame, arms: Mapping[str, Arm]) -> dict[str, pd.Series]:
    """Wall times of the runs in those of the plain network, by seed; empty without a plain run."""
    found = {}
    for name, one in arms.items():
        found[name] = study.runs(frame, one).drop_duplicates("hash").set_index("seed")["wall_s"].astype(float).dropna()
    plain = found.get("plain network")
    if plain is None or plain.empty:
        return {}
    return {name: times / plain.median() for name, times in found.items() if len(times)}


def _pareto(ax: Axes, points: list[tuple[float, float]]) -> None:
    """A staircase through the points that no cheaper point exceeds."""
    best: list[tuple[float, float]] = []
    for time, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or value > best[-1][1]:
            best.append((time, value))
    x, y = zip(*best, (ax.get_xlim()[1], best[-1][1]), strict=True)
    ax.step(x, y, where="post", color=palette.CONTEXT, lw=1.4, zorder=1)


def _difference(accuracy: pd.Series, reference: pd.Series) -> str:
    both = pd.concat([accuracy, reference], axis=1, join="inner")
    return _interval(both.iloc[:, 0] - both.iloc[:, 1], 2) if len(both) else ""


def _interval(values: pd.Series, digits: int) -> str:
    mean, low, high, n = stats.t_interval(values)
    return f"{mean:.{digits}f}" if n < 2 else f"{mean:.{digits}f} ± {(high - low) / 2:.{digits}f}"
