"""Figures of how a step's cost grows with one size at a time, log on log, the exponents fitted below each panel."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from results import drawing, families, palette, stats, summary

_SIZES = {
    "batch": "minibatch",
    "widen": "widen factor",
    "blocks": "residual blocks",
    "K": "largest K of a site",
    "samples": "samples per step",
}
_LINE = 0.2  # inches for each estimator's exponents


def scaling_time(frame: pd.DataFrame) -> Figure | None:
    """Seconds of a training step as one size is varied and the others are held; below, the exponent b of the least
    squares fit seconds ∝ size^b with a 95 % t interval. Where a part of the cost is fixed, b is that of this range."""
    rows = summary.measured(frame, "seconds", suite="scaling")
    said = "medians of {n} timings, 95 % intervals"
    return _draw(frame, rows, "How the time of a training step grows", "time of a step, s", said)


def scaling_memory(frame: pd.DataFrame) -> Figure | None:
    """Bytes at the peak of a training step as one size is varied and the others are held; below, the exponent b of the
    least squares fit bytes ∝ size^b with a 95 % t interval. Nothing is random in bytes: the interval is how far they
    are from a power, as a sum of parameters, which are fixed in the minibatch, and activations is."""
    rows = summary.measured(frame, "bytes", suite="scaling", part="peak")
    rows = rows.assign(value=rows["value"] / 2**20)
    return _draw(frame, rows, "How the memory of a training step grows", "peak memory, MiB", "counted, {n} each")


def exponents(rows: pd.DataFrame) -> dict[tuple[str, str], stats.Interval]:
    """The exponent of every estimator in every size that is varied, of pooled rows of one task and metric."""
    groups = rows.groupby(["estimator", "point"])
    return {(name, what): stats.exponent(part["x"], part["value"]) for (name, what), part in groups}


def _draw(frame: pd.DataFrame, rows: pd.DataFrame, title: str, label: str, measured: str) -> Figure | None:
    rows = summary.pool(rows)
    if rows.empty:
        return None
    held = summary.measured(frame, "base", suite="scaling")
    tasks = sorted(rows["task"].unique())
    there = [what for what in _SIZES if (rows["point"] == what).any()]
    looks = palette.looks(rows)
    names = {task: _chosen(rows[rows["task"] == task], looks) for task in tasks}
    heights = [height for task in tasks for height in (2.3, _LINE * (len(names[task]) + 1.5))]
    with drawing.style():
        figure, axes = drawing.grid(
            2 * len(tasks), len(there), 1.2 + sum(heights) + 0.6 * len(tasks), height_ratios=heights, sharey="row"
        )
        fits = []
        for line, task in enumerate(tasks):
            here = rows[(rows["task"] == task) & rows["estimator"].isin(names[task])]
            found = exponents(here)
            fits += [fit.n for fit in found.values()]
            for column, what in enumerate(there):
                panel, below = axes[2 * line, column], axes[2 * line + 1, column]
                base = held.loc[(held["task"] == task) & (held["point"] == what), "value"]
                _panel(panel, here[here["point"] == what], found, base, what)
                _exponents(
                    below, [found.get((name, what)) for name in names[task]], [looks[name] for name in names[task]]
                )
            axes[2 * line, 0].set_ylabel(label)
            if len(tasks) > 1:
                axes[2 * line, 0].set_title(task)
        drawing.title(
            figure,
            title,
            f"{', '.join(tasks)}; {drawing.place(rows)}",
            measured.format(n=drawing.counts(rows["n"])),
            f"lines: fits ∝ size^exponent to {drawing.counts(pd.Series(fits))} sizes; ± half of the 95 % t interval",
            "dotted: the size that is held in the other panels",
            families.rule("shown", label, {name for mine in names.values() for name in mine}, looks),
        )
    return figure


def _chosen(rows: pd.DataFrame, looks: dict[str, palette.Look]) -> list[str]:
    measure = rows.groupby("estimator")["value"].mean()
    kept = families.chosen({label: looks[label].name for label in measure.index}, measure)
    return summary.ordered(rows[rows["estimator"].isin(kept)])


def _panel(
    ax: Axes,
    rows: pd.DataFrame,
    found: dict[tuple[str, str], stats.Interval],
    base: pd.Series,
    what: str,
) -> None:
    ax.set_xscale("log")
    ax.set_yscale("log")
    if rows.empty:
        ax.set_visible(False)
        return
    if base.nunique() == 1:
        ax.axvline(base.iloc[0], color=drawing.MUTED, lw=0.9, ls=":")
    looks = palette.looks(rows)
    for name, part in rows.groupby("estimator"):
        part = part.sort_values("x")
        look = looks[str(name)]
        for point in part.itertuples():
            drawing.errors(ax, look, point.x, (point.value, point.low, point.high), size=4.5)
        x, y = np.log(part["x"]), np.log(part["value"])
        fitted = np.exp(y.mean() + found[str(name), what].estimate * (x - x.mean()))
        ax.plot(part["x"], fitted, color=look.colour, lw=1.1)
    values = sorted(rows["x"].unique())
    ax.xaxis.set_major_locator(FixedLocator(values))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_minor_locator(NullLocator())
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.margins(x=0.12)
    ax.set_xlabel(_SIZES[what])


def _exponents(ax: Axes, fits: Sequence[stats.Interval | None], looks: Sequence[palette.Look]) -> None:
    """A column of the table of exponents, which is the legend as well."""
    ax.set_xlim(0, 1)
    ax.set_ylim(len(looks) - 0.4, -0.6)
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_xticks([])
    ax.set_yticks(range(len(looks)), [drawing.wrapped(look.label, 28) for look in looks], linespacing=0.9)
    ax.tick_params(left=False)
    ax.xaxis.set_label_position("top")
    ax.set_xlabel("exponent", color=drawing.MUTED, fontsize=8.5)
    for y, (look, fit) in enumerate(zip(looks, fits, strict=True)):
        if fit is not None:
            drawing.errors(ax, look, 0.06, y, size=4.5)
            ax.text(0.16, y, _said(fit), va="center", fontsize=8.5)


def _said(fit: stats.Interval) -> str:
    half = (fit.high - fit.low) / 2
    exponent = f"{fit.estimate:.2f}".replace("-0.00", "0.00").replace("-", "−")
    return exponent if np.isnan(half) else f"{exponent} ± {half:.2f}"
