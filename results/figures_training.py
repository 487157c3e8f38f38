"""Figures of training runs: accuracy against parameters, what q does over the epochs, and the toy objective."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from results import drawing, palette, stats, summary


def accuracy_parameters(frame: pd.DataFrame) -> Figure | None:
    """Test accuracy against the parameters of the learned network: seeds faint, their mean with t intervals."""
    keys = ["task", *summary.CONTEXT, "estimator", "seed"]
    accuracy = summary.measured(frame, "accuracy", part="test")
    both = accuracy.merge(summary.measured(frame, "parameters"), on=keys, suffixes=("", "_p"))
    if both.empty:
        return None
    both = both.assign(value=100 * both["value"], value_p=both["value_p"] / 1e6)
    unit, factor = ("millions", 1.0) if both["value_p"].max() >= 0.5 else ("thousands", 1e3)
    both["value_p"] *= factor
    tasks = sorted(both["task"].unique())
    with drawing.style():
        figure, axes = drawing.grid(1, len(tasks), 4.4, sharey=True)
        for ax, task in zip(axes[0], tasks, strict=True):
            for name, group in both[both["task"] == task].groupby("estimator"):
                ax.scatter(group["value_p"], group["value"], s=14, color=palette.colour(name), alpha=0.45, lw=0)
                across, up = stats.t_interval(group["value_p"]), stats.t_interval(group["value"])
                drawing.errors(ax, name, across[:3], up[:3], size=8)
            ax.set(xlabel=f"parameters of the learned network, {unit}", title=task)
            ax.margins(0.08)
            ax.set_xlim(left=max(0.0, ax.get_xlim()[0]))  # a t interval of a positive number may reach below 0
        axes[0, 0].set_ylabel("test accuracy, %")
        n = drawing.counts(both.groupby(["task", "estimator"])["value"].size())
        note = f"{summary.context_label(both)}; small: one seed; large: mean with 95 % t intervals, {n} seeds"
        drawing.title(figure, "Accuracy and size of what was learned", note)
        drawing.legend(figure, summary.ordered(both["estimator"]))
    return figure


def curves(frame: pd.DataFrame) -> Figure | None:
    """Expected width, expected depth and the entropy of q over the epochs."""
    panels = {
        "curve_width": "expected width, part of full",
        "curve_depth": "expected depth, layers",
        "curve_entropy": "entropy of q, nats per site",
    }
    return _curves(frame, panels, "epoch", "What training does to q")


def objective(frame: pd.DataFrame) -> Figure | None:
    """The objective of the toy task, E_q f, over the steps of its training."""
    panels = {"curve_objective": "E_q f"}
    return _curves(frame, panels, "step", "The toy objective as q is trained")


def _curves(frame: pd.DataFrame, panels: dict[str, str], x: str, headline: str) -> Figure | None:
    rows = summary.measured(frame, list(panels))
    rows = rows[rows["x"].notna()]
    if rows.empty:
        return None
    # A row of axes per task, and no axes for what nothing changes there: a width task keeps its depth.
    changing = rows.groupby(["task", "metric"])["value"].transform("nunique") > 1
    rows = rows[changing] if changing.any() else rows
    pooled = summary.pool(rows)
    panels = {metric: label for metric, label in panels.items() if (rows["metric"] == metric).any()}
    tasks = sorted(rows["task"].unique())
    with drawing.style():
        figure, axes = drawing.grid(len(tasks), len(panels), 1.3 + 2.7 * len(tasks))
        for line, task in zip(axes, tasks, strict=True):
            for ax, (metric, label) in zip(line, panels.items(), strict=True):
                here = pooled[(pooled["task"] == task) & (pooled["metric"] == metric)]
                ax.set_visible(not here.empty)
                for name, curve in here.groupby("estimator"):
                    drawing.band(ax, name, curve)
                ax.set(xlabel=x, ylabel=label)
                ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
                if metric != "curve_objective":
                    ax.set_ylim(bottom=max(0.0, ax.get_ylim()[0]))
                if len(tasks) > 1 and metric == here["metric"].max():
                    ax.set_title(task)
                if len(panels) == 1:
                    _direct_labels(ax, here)
        n = drawing.counts(pooled["seeds"])
        spread = "; bands: 95 % t intervals" if pooled["seeds"].max() > 1 else ""
        note = f"{', '.join(tasks)}; {summary.context_label(rows)}; mean over seeds, {n}{spread}"
        drawing.title(figure, headline, note)
        if len(panels) > 1:
            drawing.legend(figure, summary.ordered(rows["estimator"]), lines=True)
    return figure


def _direct_labels(ax: Axes, curves: pd.DataFrame) -> None:
    """Names at the right ends of the curves, moved apart where the curves end together."""
    ends = curves.sort_values("x").groupby("estimator").last()
    low, high = ax.get_ylim()
    heights = drawing.spread(ends["value"].to_list(), (high - low) * 0.052)
    right = curves["x"].max()
    ax.set_xlim(curves["x"].min(), right)
    for name, height in zip(ends.index, heights, strict=True):
        ax.annotate(str(name), (right, height), (6, 0), textcoords="offset points", va="center", fontsize=8.5,
                    color=palette.colour(str(name)), annotation_clip=False)  # fmt: skip
    ax.set_ylim(min(low, float(np.min(heights))), max(high, float(np.max(heights))))
