"""Figures of training runs: accuracy against size and cost, widths by block, what q does, and the toy objective."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from results import drawing, families, labels, palette, stats, summary

FEW = 3
"""Seeds from which an interval is drawn: that of two, 9 times their distance, would only hide the two."""


def interval(values: pd.Series) -> stats.Interval:
    """The mean over seeds, with its t interval if there are at least `FEW`."""
    mean, low, high, n = stats.t_interval(values)
    return stats.Interval(mean, low, high, n) if n >= FEW else stats.Interval(mean, np.nan, np.nan, n)


def accuracy_parameters(frame: pd.DataFrame) -> Figure | None:
    """Test accuracy against the parameters of the learned network: seeds faint, their mean with t intervals."""
    parameters = summary.measured(frame, "parameters")["value"]
    unit, factor = ("millions", 1e-6) if parameters.max() >= 0.5e6 else ("thousands", 1e-3)
    return _accuracy_against(frame, "parameters", factor, f"parameters of the\nlearned network, {unit}", "size")


def accuracy_macs(frame: pd.DataFrame) -> Figure | None:
    """Test accuracy against the part of the full network's MACs that was kept, the controls among the learned."""
    return _accuracy_against(frame, "macs_ratio", 100.0, "multiply-accumulates,\n% of the full network", "cost")


def _accuracy_against(frame: pd.DataFrame, metric: str, factor: float, label: str, what: str) -> Figure | None:
    both = runs_against(frame, metric, factor)
    if both["estimator"].nunique() < 2:  # nothing to compare
        return None
    tasks, looks = sorted(both["task"].unique()), palette.looks(both)
    with drawing.style():
        figure, axes = drawing.grid(1, len(tasks), 4.2, sharey=True)
        named: list[labels.Named] = []
        shown: set[str] = set()
        for ax, task in zip(axes[0], tasks, strict=True):
            here = both[both["task"] == task]
            mine = _chosen(here, looks, -here.groupby("estimator")["value"].mean())
            shown |= set(mine)
            for name, group in here.groupby("estimator"):
                across, up = (interval(group[column]) for column in ("value_x", "value"))
                if name not in mine:
                    drawing.grey(ax, across.estimate, up.estimate)
                    continue
                look = looks[str(name)]
                ax.scatter(group["value_x"], group["value"], s=12, color=look.colour, alpha=0.4, lw=0)
                drawing.errors(ax, look, across[:3], up[:3], size=7.5)
                said = drawing.wrapped(look.label, 20)
                named.append(labels.Named(ax, across.estimate, up.estimate, said, look.ink))
            ax.set(xlabel=label, title=task if len(tasks) > 1 else "")
            ax.set_xlim(around(here["value_x"]))
        axes[0, 0].set(ylabel="test accuracy, %", ylim=around(both["value"]))
        n = drawing.counts(both.groupby(["task", "estimator"])["value"].size())
        drawing.title(
            figure,
            f"Accuracy and {what} of the learned network",
            f"{', '.join(tasks)}; {drawing.place(both)}",
            f"small: one seed; large: mean of {n} seeds, from {FEW} seeds on with its 95 % t interval",
            families.rule("named", "test accuracy", shown, looks, grey=True),
        )
        labels.at_points(figure, named)
    return figure


def _chosen(rows: pd.DataFrame, looks: dict[str, palette.Look], measure: pd.Series) -> list[str]:
    """The estimators of some rows that are named, the best by a measure of each label."""
    return families.chosen({label: looks[label].name for label in rows["estimator"].unique()}, measure)


def _inaccuracy(frame: pd.DataFrame, task: str) -> pd.Series:
    """The mean test accuracy of every estimator on a task, the best first where less is better."""
    rows = summary.measured(frame, "accuracy", part="test", task=task)
    return -rows.groupby("estimator")["value"].mean()


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
        named: list[labels.Named] = []
        shown: set[str] = set()
        for ax, task in zip(axes[0], tasks, strict=True):
            here = rows[rows["task"] == task]
            mine = _chosen(here, looks, _inaccuracy(frame, task))
            shown |= set(mine)
            for name in summary.ordered(here):
                mean, look = means.loc[(task, name)], looks[name]
                if name not in mine:
                    ax.plot(mean.index, mean, color=palette.CONTEXT, lw=0.7, zorder=1.5)
                    continue
                ax.plot(mean.index, mean, color=look.colour, marker=look.marker, ms=5, lw=1.7)
                for _, one in wide.loc[(task, name)].iterrows():
                    ax.plot(one.index, one, color=look.colour, lw=0.6, alpha=0.35)
                said = drawing.wrapped(name, 20)
                named.append(labels.Named(ax, mean.index[-1], mean.iloc[-1], said, look.ink))
            ax.set(xlabel="residual block", title=task if len(tasks) > 1 else "", ylim=(0, 1.05))
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0, 0].set_ylabel("hidden channels kept,\npart of the full block")
        n = drawing.counts(rows.groupby(["task", "estimator"])["seed"].nunique())
        drawing.title(
            figure,
            "Which blocks keep their width",
            f"{', '.join(tasks)}; {drawing.place(rows)}",
            f"thick: mean of {n} seeds; thin: one seed",
            families.rule("named", "test accuracy", shown, looks, grey=True),
        )
        labels.at_ends(figure, named)
    return figure


def curves(frame: pd.DataFrame) -> Figure | None:
    """Expected width, expected depth and the entropy of q over the epochs."""
    panels = {
        "curve_width": "expected width,\npart of the full network",
        "curve_depth": "expected depth,\nlayers",
        "curve_entropy": "entropy of q,\nnats per site",
    }
    return _curves(frame, panels, "epoch", "Width, depth and entropy of q during training")


def objective(frame: pd.DataFrame) -> Figure | None:
    """The objective over the steps of training: E_q f, exactly, of a function; the ELBO of test images of a VAE."""
    panels = {"curve_objective": "objective, E_q f", "curve_elbo": "test ELBO, nats"}
    return _curves(frame, panels, "training step", "The objective during training")


def _curves(frame: pd.DataFrame, panels: dict[str, str], x: str, headline: str) -> Figure | None:
    rows = summary.measured(frame, list(panels))
    rows = rows[rows["x"].notna()]
    if rows.empty:
        return None
    rows = changing(rows)
    pooled, looks = summary.pool(rows), palette.looks(rows)
    panels = {metric: label for metric, label in panels.items() if (rows["metric"] == metric).any()}
    tasks = sorted(rows["task"].unique())
    with drawing.style():
        figure, axes = drawing.grid(len(tasks), len(panels), 1.4 + 2.8 * len(tasks))
        named: list[labels.Named] = []
        shown: set[str] = set()
        for line, task in zip(axes, tasks, strict=True):
            mine = _chosen(pooled[pooled["task"] == task], looks, _worth(frame, pooled, task))
            shown |= set(mine)
            for ax, (metric, label) in zip(line, panels.items(), strict=True):
                at = (rows["task"] == task) & (rows["metric"] == metric)
                here = pooled[(pooled["task"] == task) & (pooled["metric"] == metric)]
                ax.set_visible(not here.empty)
                named += _lines(ax, here, rows[at], looks, mine)
                ax.set(xlabel=x, ylabel=label)
                ax.xaxis.set_major_locator(MaxNLocator(4 if len(panels) > 1 else 6, integer=True))
                if metric not in ("curve_objective", "curve_elbo"):
                    ax.set_ylim(bottom=max(0.0, ax.get_ylim()[0]))
                if len(tasks) > 1 and metric == here["metric"].max():
                    ax.set_title(task)
        n = drawing.counts(pooled["seeds"])
        spread = "bands: 95 % t intervals" if pooled["seeds"].max() >= FEW else "thin: one seed"
        by = "test accuracy" if x == "epoch" else "last value"
        drawing.title(
            figure,
            headline,
            f"{', '.join(tasks)}; {drawing.place(rows)}",
            f"mean over seeds, {n}; {spread}",
            families.rule("named", by, shown, looks, grey=True),
        )
        labels.at_ends(figure, named)
    return figure


def _worth(frame: pd.DataFrame, pooled: pd.DataFrame, task: str) -> pd.Series:
    """By which the best of a family is chosen, less is better: the objective's last value, else test accuracy."""
    here = pooled[(pooled["task"] == task) & pooled["metric"].isin(["curve_objective", "curve_elbo"])]
    if here.empty:
        return _inaccuracy(frame, task)
    last = here.sort_values("x").groupby("estimator").last()
    return last["value"].where(last["metric"] == "curve_objective", -last["value"])


def _lines(
    ax: Axes, pooled: pd.DataFrame, runs: pd.DataFrame, looks: dict[str, palette.Look], mine: Sequence[str]
) -> list[labels.Named]:
    """The curves of one panel, and what to write at their ends."""
    named = []
    for name, curve in pooled.groupby("estimator"):
        look, curve = looks[str(name)], curve.sort_values("x")
        if name not in mine:
            ax.plot(curve["x"], curve["value"], color=palette.CONTEXT, lw=0.7, zorder=1.5)
            continue
        few = curve["seeds"].max() < FEW
        drawing.band(ax, look, curve.assign(low=np.nan, high=np.nan) if few else curve)
        for _, run in runs[runs["estimator"] == name].groupby("hash") if few else ():
            ax.plot(run["x"], run["value"], color=look.colour, lw=0.6, alpha=0.5)
        said = drawing.wrapped(look.label, 16)
        named.append(labels.Named(ax, curve["x"].iloc[-1], curve["value"].iloc[-1], said, look.ink))
    if not pooled.empty and pooled["x"].min() < pooled["x"].max():
        ax.set_xlim(pooled["x"].min(), pooled["x"].max())
    return named


def changing(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of curves of what changes on a task, if anything does: a width task keeps its depth."""
    moving = rows.groupby(["task", "metric"])["value"].transform("nunique") > 1
    return rows[moving] if moving.any() else rows
