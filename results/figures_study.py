"""Figures of the study: the drop in accuracy taken apart, the arms of the factorial, and training by epochs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from results import drawing, labels, palette, rivals, stats, study, words
from results.study_design import AVERAGED, EPOCHS, PAPER, RLOO, SCHEDULES, SWEEP, WARM, Arm, arm

LOSS, GAIN, WHOLE = "#c1602e", "#3b76a8", "#6b6b6b"
WEIGHTS = {"mode": "most probable network", PAPER: "soft masks, 0.1 → 0.001"}


def waterfall(frame: pd.DataFrame, dataset: str = "cifar10_16") -> Figure | None:
    """From the plain network's accuracy to that of Concrete's, step by step."""
    parts = study.decomposition(frame, dataset)
    if parts is None:
        return None
    names = ["plain network", *(step.name for step in parts.steps), "Concrete's network"]
    level = parts.plain.estimate
    with drawing.style():
        figure, axes = drawing.grid(1, 1, 4.3)
        ax = axes[0, 0]
        bottoms, ends = [], [level]
        for step in parts.steps:
            bottoms.append(level)
            level -= step.lost.estimate
            ends.append(level)
        tips = [start - step.lost.high for start, step in zip(bottoms, parts.steps, strict=True)]
        drop = parts.plain.estimate - min(ends)
        low = max(min(*ends, *tips, parts.concrete.low), min(ends) - drop)  # with two seeds they reach far
        floor = low - 0.22 * (parts.plain.estimate - low)
        for at, (value, interval) in (
            (0, (parts.plain.estimate, parts.plain)),
            (len(names) - 1, (level, parts.concrete)),
        ):
            ax.bar(at, value - floor, bottom=floor, color=WHOLE, width=0.62)
            ax.plot([at, at], interval[1:3], color="black", lw=1.3)
            ax.annotate(
                f"{value:.1f} %", (at, max(value, interval.high)), (0, 3), textcoords="offset points", ha="center"
            )
        for at, (step, start) in enumerate(zip(parts.steps, bottoms, strict=True), 1):
            lost = step.lost
            end = start - lost.estimate
            ax.bar(at, end - start, bottom=start, color=LOSS if lost.estimate > 0 else GAIN, width=0.62)
            ax.plot([at, at], [start - lost.high, start - lost.low], color="black", lw=1.3)
            ax.plot([at - 1 + 0.31, at - 0.31], [start, start], color="#9a9a9a", lw=0.8)
            said = f"{-lost.estimate:+.2f} ± {(lost.high - lost.low) / 2:.2f}".replace("-", "−")
            ax.annotate(said, (at, floor), (0, 4), textcoords="offset points", ha="center", fontsize=labels.SIZE)
        ax.set_xticks(range(len(names)), [_folded(name) for name in names])
        ax.tick_params(axis="x", labelsize=8.5)
        ax.grid(False, axis="x")
        ax.set(
            ylabel="test accuracy, %",
            ylim=(floor, max(parts.plain.high, parts.plain.estimate) + 0.06 * (parts.plain.estimate - floor)),
        )
        note = f"{_note(dataset)}; n = {parts.drop.n} paired seeds; black and ±: 95 % t intervals."
        if parts.blamed == study.BIAS:
            note += " Bias, variance, soft weights: Shapley values."
        drawing.title(figure, "Where the accuracy goes", note)
    return figure


def factorial(frame: pd.DataFrame, dataset: str = "cifar10_16") -> Figure | None:
    """Test accuracy by the estimator of φ and by what the weights train on."""
    estimators = {
        "sweep: no bias, little variance": SWEEP,
        "rloo: no bias, much variance": RLOO,
        "Concrete at t = 1: much bias, little variance": WARM,
        "Concrete, mean of 4: bias, less variance": AVERAGED,
        "Concrete: bias, much variance": PAPER,
    }
    found = {
        (label, weights): values
        for label, name in estimators.items()
        for weights in WEIGHTS
        if len(values := study.values(frame, arm(name, weights, dataset=dataset)))
    }
    if len({label for label, _ in found}) < 2:
        return None
    shown = [label for label in estimators if any(one == label for one, _ in found)]
    with drawing.style():
        figure, axes = drawing.grid(1, 1, 1.3 + 0.55 * len(shown))
        ax = axes[0, 0]
        for (label, weights), values in found.items():
            y = shown.index(label) + (0.16 if weights == PAPER else -0.16)
            _dots(ax, values, y, _look(estimators[label]), hollow=weights != "mode")
        for weights in dict.fromkeys(weights for _, weights in found):
            text = WEIGHTS[weights]
            said = f"weights on the {text}" if weights == "mode" else f"weights on {text}"
            ax.plot([], [], "o", color=drawing.MUTED, mfc=drawing.MUTED if weights == "mode" else "white", label=said)
        ax.set_yticks(range(len(shown)), shown)
        ax.set(xlabel="test accuracy, %", ylim=(len(shown) - 0.5, -0.5))
        ax.grid(False, axis="y")
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.1)
        n = drawing.counts(pd.Series([len(values) for values in found.values()]))
        drawing.title(
            figure,
            "What φ learns by and what the weights train on",
            f"{_note(dataset)}; {n} seeds; large: mean with 95 % t interval",
        )
    return figure


def schedules(frame: pd.DataFrame, dataset: str = "cifar10_16") -> Figure | None:
    """Test accuracy of Concrete by the schedule of its temperature."""
    named = {"0.1 → 0.001 (the paper's)": PAPER} | {name: f"concrete[temperature={t}]" for name, t in SCHEDULES.items()}
    found = {
        name: values for name, label in named.items() if len(values := study.values(frame, arm(label, dataset=dataset)))
    }
    if len(found) < 2:
        return None
    with drawing.style():
        figure, axes = drawing.grid(1, 1, 1.2 + 0.34 * len(found))
        ax = axes[0, 0]
        for y, values in enumerate(found.values()):
            _dots(ax, values, y, _look(PAPER))
        ax.set_yticks(range(len(found)), list(found))
        ax.set(xlabel="test accuracy, %", ylim=(len(found) - 0.5, -0.5))
        ax.grid(False, axis="y")
        n = drawing.counts(pd.Series([len(values) for values in found.values()]))
        drawing.title(
            figure, "Temperatures of Concrete", f"{_note(dataset)}; {n} seeds; large: mean with 95 % t interval"
        )
    return figure


def convergence(frame: pd.DataFrame, dataset: str = "cifar10_16") -> Figure | None:
    """Test loss and accuracy by epoch, minus those of Concrete's network trained alone, paired by seed."""
    alone = arm(f"scratch[of='{PAPER}']", dataset=dataset)
    arms: Mapping[str, Arm] = {
        "plain network": arm("plain", dataset=dataset),
        "sweep, weights on the mode": arm(SWEEP, "mode", dataset=dataset),
        "Concrete": arm(PAPER, dataset=dataset),
        "Concrete at t = 1": arm(WARM, dataset=dataset),
        "reinforce": arm("reinforce", dataset=dataset),
    }
    panels = {"curve_test_loss": ("test loss, nats", 1.0), "curve_accuracy": ("test accuracy, points", 100.0)}
    level = {metric: study.curve(frame, alone, metric) for metric in panels}
    found = {
        name: {metric: (study.curve(frame, one, metric) - level[metric]).dropna(how="all") for metric in panels}
        for name, one in arms.items()
    }
    found = {name: curves for name, curves in found.items() if all(len(curve) for curve in curves.values())}
    if not found:
        return None
    with drawing.style():
        figure, axes = drawing.grid(1, 2, 3.9)
        named: list[labels.Named] = []
        for ax, (metric, (label, factor)) in zip(axes[0], panels.items(), strict=True):
            ax.axhline(0, color=drawing.MUTED, lw=1.0, zorder=1)
            for name, curves in found.items():
                look, mean = _look(arms[name].estimator), factor * curves[metric].mean()
                _band(ax, factor * curves[metric], look.colour)
                named.append(labels.Named(ax, mean.index[-1], mean.iloc[-1], _folded(name, 17), look.ink))
            ax.set(xlabel="epoch", ylabel=label, xlim=(mean.index[0], mean.index[-1]))
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        n = drawing.counts(pd.Series([len(curves["curve_accuracy"]) for curves in found.values()]))
        drawing.title(
            figure,
            "By epoch, minus Concrete's network trained alone",
            f"{_note(dataset)}; mean of {n} paired seeds; bands: 95 % t intervals",
        )
        labels.at_ends(figure, named)
    return figure


FIGURES = {
    "waterfall": waterfall,
    "factorial": factorial,
    "convergence": convergence,
    "schedules": schedules,
    "rivals": rivals.figure,
    "rivals_training": rivals.training,
}


def _look(estimator: str) -> palette.Look:
    return palette.Look(estimator, estimator.partition("[")[0])


def _dots(ax: Axes, values: pd.Series, y: float, look: palette.Look, *, hollow: bool = False) -> None:
    mean, low, high, _ = stats.t_interval(values)
    ax.scatter(values, np.full(len(values), y), s=12, color=look.colour, alpha=0.45, lw=0)
    drawing.errors(ax, look, (mean, low, high), y, hollow=hollow)


def _band(ax: Axes, curve: pd.DataFrame, colour: str) -> None:
    mean = curve.mean()
    ax.plot(mean.index, mean, color=colour, lw=1.8)
    if len(curve) > 2:
        half = stats.t_half(curve.std(ddof=1).to_numpy(), np.full(len(mean), len(curve)))
        ax.fill_between(mean.index, mean - half, mean + half, color=colour, alpha=0.13, lw=0)


def _folded(name: str, width: int = 13) -> str:
    return "\n".join(textwrap.wrap(name, width))


def _note(dataset: str) -> str:
    return f"Width task, half of the MACs, {words.dataset(dataset)}, WRN-16-1, {EPOCHS} epochs"
