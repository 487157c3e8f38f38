"""Figures of the gradient estimates themselves: bias against variance, and variance against cost."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from results import drawing, families, labels, palette, summary

VARIANCE = "variance of one estimate, tr Σ"
_UNITS = {"plain steps (MACs)": "plain training steps, by multiply-accumulates", "evaluations": "evaluations of f"}


def bias_variance(frame: pd.DataFrame) -> Figure | None:
    """Squared bias relative to the squared gradient against variance, half-way through training; a panel per task.

    The bias is an unbiased estimate and so may be negative: the axis is linear around zero, and an open marker says not
    distinguishable from zero. Where it is a hundred times the squared gradient or more, only its size is written.
    """
    variance = summary.one_point(summary.pool(summary.measured(frame, "variance", part="logits")))
    bias = summary.relative_bias(frame)
    bias = bias[bias["part"] == "logits"]
    keys = ["task", *summary.CONTEXT, "point", "estimator", "name"]
    both = variance.merge(bias, on=keys, suffixes=("_v", "")).reset_index(drop=True)
    if both.empty:
        return None
    tasks, looks = sorted(both["task"].unique()), palette.looks(both)
    off_scale = drawing.beyond(both)
    with drawing.style():
        figure, axes = drawing.grid(len(tasks), 1, 1.2 + 3.7 * len(tasks))
        named: list[labels.Named] = []
        shown: set[str] = set()
        for ax, task in zip(axes[:, 0], tasks, strict=True):
            here = both[both["task"] == task]
            mine = _chosen(here, looks, here["value_v"])
            shown |= set(mine)
            ax.axhline(0, color=drawing.MUTED, lw=0.9)
            far = here[off_scale[here.index] & here["estimator"].isin(mine)]
            off = "".join(f"\n{looks[line.estimator].text}: {line.value:.1g}" for line in far.itertuples())
            ax.text(0.99, 0.98, off and f"bias off the scale{off}", transform=ax.transAxes, ha="right", va="top",
                    fontsize=8.5, color=drawing.MUTED)  # fmt: skip
            here = here[~off_scale[here.index]]
            nothing = drawing.rounding(here["value_v"])
            for line in here.itertuples():
                look = looks[line.estimator]
                if nothing[line.Index]:
                    if line.estimator in mine:
                        side = ax.get_yaxis_transform()
                        ax.annotate(f"{look.text}: no variance", (0.01, line.value), (0, 4), xycoords=side,
                                    textcoords="offset points", color=look.ink, fontsize=8.5)  # fmt: skip
                elif line.estimator not in mine:
                    drawing.grey(ax, line.value_v, line.value)
                else:
                    across, up = (line.value_v, line.low_v, line.high_v), (line.value, line.low, line.high)
                    drawing.errors(ax, look, across, up, hollow=not line.low > 0)
                    named.append(labels.Named(ax, line.value_v, line.value, drawing.wrapped(look.label), look.ink))
            ax.set_xscale("log")
            scale = drawing.symlog(ax.yaxis, both[~off_scale])
            ax.set(xlabel=VARIANCE, ylabel="squared bias / ‖∇‖²", title=task if len(tasks) > 1 else "")
            ax.margins(x=0.12)
        drawing.title(
            figure,
            "Bias and variance of one gradient estimate",
            f"{', '.join(tasks)}; {drawing.place(both)}",
            f"gradient of the logits, {drawing.point(both)}" if both["point"].notna().any() else "",
            f"95 % intervals, {drawing.counts(both['n'])} draws; open: the interval of the bias includes 0",
            f"vertical axis linear within ±{scale:g}",
            families.rule("named", "variance", shown, looks, grey=True),
        )
        labels.at_points(figure, named)
    return figure


def frontier(frame: pd.DataFrame) -> Figure | None:
    """Variance of one estimate against its cost; along a dotted line their product, the error at equal cost, is one.

    Nothing is said here of bias, which no number of estimates averages out.
    """
    variance = summary.one_point(summary.pool(summary.measured(frame, "variance", part="logits")))
    cost = summary.pool(summary.measured(frame, "cost", suite="variance"))
    keys = ["task", *summary.CONTEXT, "estimator"]
    both = variance.merge(cost[[*keys, "value"]].rename(columns={"value": "cost"}), on=keys)
    both = both[~drawing.rounding(both["value"])]
    if both.empty:
        return None
    unit = summary.measured(frame, "cost", suite="variance")["unit"].iloc[0]
    tasks, looks = sorted(both["task"].unique()), palette.looks(both)
    with drawing.style():
        figure, axes = drawing.grid(len(tasks), 1, 1.2 + 3.9 * len(tasks))
        named: list[labels.Named] = []
        shown: set[str] = set()
        for ax, task in zip(axes[:, 0], tasks, strict=True):
            here = both[both["task"] == task]
            mine = _chosen(here, looks, here["value"] * here["cost"])
            shown |= set(mine)
            ax.set(xscale="log", yscale="log", ylabel=VARIANCE, title=task if len(tasks) > 1 else "")
            for line in here.itertuples():
                look = looks[line.estimator]
                if line.estimator not in mine:
                    drawing.grey(ax, line.cost, line.value)
                    continue
                drawing.errors(ax, look, line.cost, (line.value, line.low, line.high))
                named.append(labels.Named(ax, line.cost, line.value, drawing.wrapped(look.label), look.ink))
            ax.margins(0.1)
            _products(ax)
        axes[-1, 0].set_xlabel(f"cost of one estimate, {_UNITS.get(unit, unit)}")
        drawing.title(
            figure,
            "Variance and cost of one gradient estimate",
            f"{', '.join(tasks)}; {drawing.place(both)}",
            f"gradient of the logits, {drawing.point(both)}" if both["point"].notna().any() else "",
            f"95 % intervals, {drawing.counts(both['n'])} draws; dotted: equal variance × cost",
            families.rule("named", "variance × cost", shown, looks, grey=True),
        )
        labels.at_points(figure, named)
    return figure


def _products(ax: Axes) -> None:
    """Lines of equal product, in axes that then keep their limits, with ticks that are read as numbers."""
    ends, (low, high) = np.array(ax.get_xlim()), ax.get_ylim()
    for product in 10.0 ** np.arange(np.floor(np.log10(low * ends[0])), np.ceil(np.log10(high * ends[1])) + 1):
        ax.plot(ends, product / ends, color=drawing.MUTED, lw=0.7, ls=":", zorder=1)
    ax.set(xlim=ends, ylim=(low, high))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if ends[1] < 300 * ends[0] else (1.0,)))
    if ends[1] < 5 * ends[0]:
        ax.xaxis.set_major_locator(MaxNLocator(5))


def _chosen(rows: pd.DataFrame, looks: dict[str, palette.Look], measure: pd.Series) -> list[str]:
    """The estimators of some rows that are named, the best by a column of these rows."""
    names = {label: looks[label].name for label in rows["estimator"]}
    return families.chosen(names, measure.set_axis(rows["estimator"]))
