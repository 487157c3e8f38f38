"""Figures of training runs: accuracy against size and cost, widths by block, what q does, and the toy objective."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from results import drawing, palette, stats, summary

FEW = 3
"""Seeds from which an interval is drawn: that of two, 9 times their distance, would only hide the two."""


DIRECT = 10
"""Curves up to which their names stand at their ends."""


def interval(values: pd.Series) -> stats.Interval:
    """The mean over seeds, with its t interval where they are not too few."""
    mean, low, high, n = stats.t_interval(values)
    return stats.Interval(mean, low, high, n) if n >= FEW else stats.Interval(mean, np.nan, np.nan, n)


def accuracy_parameters(frame: pd.DataFrame) -> Figure | None:
    """Test accuracy against the parameters of the learned network: seeds faint, their mean with t intervals."""
    parameters = summary.measured(frame, "parameters")["value"]
    unit, factor = ("millions", 1e-6) if parameters.max() >= 0.5e6 else ("thousands", 1e-3)
    return _accuracy_against(frame, "parameters", factor, f"parameters of the learned network, {unit}", "size")


def accuracy_macs(frame: pd.DataFrame) -> Figure | None:
    """Test accuracy against the part of the full network's MACs that was kept, the controls among the learned."""
    return _accuracy_against(frame, "macs_ratio", 100.0, "MACs, % of the full network", "cost")


def _accuracy_against(frame: pd.DataFrame, metric: str, factor: float, label: str, what: str) -> Figure | None:
    both = runs_against(frame, metric, factor)
    if both["estimator"].nunique() < 2:  # nothing to compare
        return None
    tasks, looks = sorted(both["task"].unique()), palette.looks(both)
    with drawing.style():
        figure, axes = drawing.grid(1, len(tasks), 4.4, sharey=True)
        for ax, task in zip(axes[0], tasks, strict=True):
            here = both[both["task"] == task]
            for name, group in here.groupby("estimator"):
                ax.scatter(group["value_x"], group["value"], s=14, color=looks[name].colour, alpha=0.45, lw=0)
                across, up = (interval(group[column]) for column in ("value_x", "value"))
                drawing.errors(ax, looks[name], across[:3], up[:3], size=8)
            ax.set(xlabel=label, title=task)
            ax.set_xlim(around(here["value_x"]))
        axes[0, 0].set(ylabel="test accuracy, %", ylim=around(both["value"]))
        n = drawing.counts(both.groupby(["task", "estimator"])["value"].size())
        shown = f"small: one seed; large: mean, from {FEW} on with 95 % t intervals, {n} seeds"
        note = f"{summary.context_label(both)}; {shown}"
        drawing.title(figure, f"Accuracy and {what} of what was learned", note)
        drawing.legend(figure, [looks[name] for name in summary.ordered(both)])
    return figure


def runs_against(frame: pd.DataFrame, metric: str, factor: float) -> pd.DataFrame:
    """Every run with its test accuracy in % as `value`, and with a metric, times a factor, as `value_x`."""
    keys = ["task", *summary.CONTEXT, "data", "estimator", "seed"]
    accuracy = summary.measured(frame, "accuracy", part="test")
    both = accuracy.merge(summary.measured(frame, metric, suite="accuracy"), on=keys, suffixes=("", "_x"))
    return both.assign(value=100 * both["value"], value_x=factor * both["value_x"])


def around(values: pd.Series) -> tuple[float, float]:
    """Limits from the runs and not from the intervals: those of two seeds are wider than all that is to be seen."""
    room = 0.12 * max(values.max() - values.min(), 0.02 * values.max())
    return max(0.0, values.min() - room), values.max() + room


def block_widths(frame: pd.DataFrame) -> Figure | None:
    """The hidden channels that each block keeps, as a part of those of the full network: mean over seeds."""
    rows = summary.measured(frame, "block_width")
    keys = ["task", *summary.CONTEXT, "x"]
    full = rows[rows["estimator"] == "plain"].groupby(keys, dropna=False)["value"].max().rename("full")
    rows = rows.merge(full.reset_index(), on=keys)
    controls = rows["name"].isin(["plain", *summary.CONTROLS])
    rows = rows[~controls & rows["task"].isin(["width", "joint"])]
    if rows.empty:
        return None
    # a network that ends before a block keeps none of it
    wide = rows.assign(value=rows["value"] / rows["full"]).pivot_table(
        index=["task", "estimator", "hash"], columns="x", values="value", fill_value=0.0
    )
    means = wide.groupby(["task", "estimator"]).mean()
    tasks, looks = sorted(rows["task"].unique()), palette.looks(rows)
    with drawing.style():
        figure, axes = drawing.grid(1, len(tasks), 3.8, sharey=True)
        for ax, task in zip(axes[0], tasks, strict=True):
            for name in summary.ordered(rows[rows["task"] == task]):
                seeds = wide.loc[(task, name)]
                mean = means.loc[(task, name)]
                colour = looks[name].colour
                ax.plot(mean.index, mean, color=colour, marker=looks[name].marker, ms=5, lw=1.4)
                for _, one in seeds.iterrows():
                    ax.plot(one.index, one, color=colour, lw=0.6, alpha=0.4)
            ax.set(xlabel="block", title=task, ylim=(0, 1.05))
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0, 0].set_ylabel("hidden channels kept, part of full")
        n = drawing.counts(rows.groupby(["task", "estimator"])["seed"].nunique())
        note = f"{summary.context_label(rows)}; thick: mean; thin: one seed, {n} seeds"
        drawing.title(figure, "Which blocks keep their width", note)
        drawing.legend(figure, [looks[name] for name in summary.ordered(rows)], lines=True)
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
    """The objective over the steps of training: E_q f, exactly, of a function; the ELBO of test images of a VAE."""
    panels = {"curve_objective": "E_q f", "curve_elbo": "test ELBO, nats"}
    return _curves(frame, panels, "step", "The objective as q is trained")


def _curves(frame: pd.DataFrame, panels: dict[str, str], x: str, headline: str) -> Figure | None:
    rows = summary.measured(frame, list(panels))
    rows = rows[rows["x"].notna()]
    if rows.empty:
        return None
    rows = changing(rows)
    pooled, looks = summary.pool(rows), palette.looks(rows)
    panels = {metric: label for metric, label in panels.items() if (rows["metric"] == metric).any()}
    tasks = sorted(rows["task"].unique())
    direct = len(panels) == 1 and rows["estimator"].nunique() <= DIRECT
    with drawing.style():
        figure, axes = drawing.grid(len(tasks), len(panels), 1.3 + 2.7 * len(tasks))
        for line, task in zip(axes, tasks, strict=True):
            for ax, (metric, label) in zip(line, panels.items(), strict=True):
                here = pooled[(pooled["task"] == task) & (pooled["metric"] == metric)]
                ax.set_visible(not here.empty)
                for name, curve in here.groupby("estimator"):
                    few = curve["seeds"].max() < FEW
                    drawing.band(ax, looks[name], curve.assign(low=np.nan, high=np.nan) if few else curve)
                    runs = rows[(rows["task"] == task) & (rows["metric"] == metric) & (rows["estimator"] == name)]
                    for _, run in runs.groupby("hash") if few else ():
                        ax.plot(run["x"], run["value"], color=looks[name].colour, lw=0.6, alpha=0.5)
                ax.set(xlabel=x, ylabel=label)
                ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
                if metric not in ("curve_objective", "curve_elbo"):
                    ax.set_ylim(bottom=max(0.0, ax.get_ylim()[0]))
                if len(tasks) > 1 and metric == here["metric"].max():
                    ax.set_title(task)
                if direct:
                    _direct_labels(ax, here, looks)
        n = drawing.counts(pooled["seeds"])
        spread = "; bands: 95 % t intervals" if pooled["seeds"].max() >= FEW else "; thin: one seed"
        note = f"{', '.join(tasks)}; {summary.context_label(rows)}; mean over seeds, {n}{spread}"
        drawing.title(figure, headline, note)
        if not direct:
            drawing.legend(figure, [looks[name] for name in summary.ordered(rows)], lines=True)
    return figure


def changing(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of curves of what changes on a task, if anything does: a width task keeps its depth."""
    moving = rows.groupby(["task", "metric"])["value"].transform("nunique") > 1
    return rows[moving] if moving.any() else rows


def _direct_labels(ax: Axes, curves: pd.DataFrame, looks: dict[str, palette.Look]) -> None:
    """Names at the right ends of the curves, moved apart where the curves end together."""
    ends = curves.sort_values("x").groupby("estimator").last()
    low, high = ax.get_ylim()
    heights = drawing.spread(ends["value"].to_list(), (high - low) * 0.052)
    right = curves["x"].max()
    if curves["x"].min() < right:
        ax.set_xlim(curves["x"].min(), right)
    for name, height in zip(ends.index, heights, strict=True):
        ax.annotate(str(name), (right, height), (6, 0), textcoords="offset points", va="center", fontsize=8.5,
                    color=looks[str(name)].colour, annotation_clip=False)  # fmt: skip
    ax.set_ylim(min(low, float(np.min(heights))), max(high, float(np.max(heights))))
