"""Figures of what an estimate costs: bytes by what they hold, and time and multiply-accumulates of a step."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results import drawing, families, palette, summary

_PARTS = {
    "parameters": "#4c5f7a",
    "gradients": "#7f95b2",
    "optimizer": "#b9c6d6",
    "activations": "#d98c4a",
    "other": "#cfcfcf",
}
_FEW = 4
"""Estimators that failed up to which they are named."""
_SPAN = 0.05  # the shortest axis of ratios: less would enlarge differences of no size
_UNITS = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}


def memory(frame: pd.DataFrame) -> Figure | None:
    """Bytes at the peak of one step, stacked by what holds them; plain training on top, failures in the note."""
    rows = summary.pool(summary.measured(frame, "bytes", suite="memory"))
    rows = rows[rows["part"].isin([*_PARTS, "peak"])]
    if rows.empty:
        return None
    tried = frame[frame["suite"] == "memory"]
    tasks, looks = sorted(rows["task"].unique()), palette.looks(rows)
    tables, failures, shown = [], [], set()
    for task in tasks:
        sizes = rows[rows["task"] == task].pivot_table(index="estimator", columns="part", values="value")
        total = sizes["peak"] = sizes.get("peak", sizes.sum(axis=1))
        mine = families.chosen({label: looks[label].name for label in sizes.index}, total)
        shown |= set(mine)
        tables.append(sizes.loc[sorted(mine, key=lambda name: (name != "plain", total[name]))])
        failed = tried[(tried["task"] == task) & (tried["status"] != "ok") & ~tried["estimator"].isin(sizes.index)]
        failures.append(failed.groupby("estimator")["status"].first())
    heights = [len(sizes) for sizes in tables]
    with drawing.style():
        figure, axes = drawing.grid(len(tasks), 1, 1.4 + 0.29 * sum(heights) + 0.7 * len(tasks), height_ratios=heights)
        for ax, task, sizes in zip(axes[:, 0], tasks, tables, strict=True):
            _bars(ax, sizes)
            if len(tasks) > 1:
                ax.set_title(task)
        drawing.title(
            figure,
            "Memory of one training step",
            f"{', '.join(tasks)}; {drawing.place(rows)}; right: peak and its ratio to plain training",
            _failed(failures),
            families.rule("shown", "memory", shown, looks),
        )
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower left", ncols=5)
    return figure


def _bars(ax: Axes, sizes: pd.DataFrame) -> None:
    """A bar for each estimator, stacked by what holds the bytes."""
    peak = sizes["peak"].max()
    unit, factor = next((name, size) for name, size in _UNITS.items() if peak > size / 2 or size == 1)
    sizes, left = sizes / factor, np.zeros(len(sizes))
    for part, colour in _PARTS.items():
        if part in sizes:
            width = sizes[part].fillna(0).to_numpy()
            ax.barh(range(len(sizes)), width, left=left, color=colour, height=0.68, label=part, ec="white", lw=0.6)
            left += width
    totals = sizes["peak"].to_numpy()
    for y, total in enumerate(totals):
        ratio = f"  {total:.3g}" + (f"  ({total / totals[0]:.2f}×)" if sizes.index[0] == "plain" and y else "")
        ax.text(max(total, left[y]), y, ratio, va="center", fontsize=8.5)
    ax.set_yticks(range(len(sizes)), [drawing.wrapped(name) for name in sizes.index])
    ax.set_ylim(len(sizes) - 0.4, -0.6)
    ax.margins(x=0.2)
    ax.grid(False, axis="y")
    ax.set_xlabel(f"memory at the peak of one training step, {unit}")


def _failed(failures: Sequence[pd.Series]) -> str:
    """What failed, by how: the names of a few, else their number."""
    together = pd.concat(failures)
    said = []
    for status, labels in together.groupby(together):
        names = sorted({palette.text(str(label)) for label in labels.index})
        said.append(f"{status}: {', '.join(names) if len(names) <= _FEW else f'{len(names)} estimators'}")
    return "; ".join(said)


def overhead(frame: pd.DataFrame) -> Figure | None:
    """Time and multiply-accumulates of one step as ratios to a plain one."""
    rows = summary.pool(summary.measured(frame, ["time_ratio", "macs_ratio"], suite="overhead"))
    if rows.empty:
        return None
    tasks, looks = sorted(rows["task"].unique()), palette.looks(rows)
    panels = {"time_ratio": "time of a step", "macs_ratio": "multiply-accumulates of a step"}
    panels = {metric: label for metric, label in panels.items() if (rows["metric"] == metric).any()}
    first = rows[rows["metric"] == next(iter(panels))]
    names = {}
    for task in tasks:
        here = rows[rows["task"] == task].drop_duplicates("estimator")["estimator"]
        ratio = first[first["task"] == task].groupby("estimator")["value"].mean()
        mine = families.chosen({label: looks[label].name for label in here}, ratio)
        names[task] = sorted(mine, key=lambda label: ratio.get(label, np.inf))
    with drawing.style():
        figure, axes = drawing.grid(
            len(tasks),
            len(panels),
            1.6 + sum(0.28 * len(names[task]) + 0.35 for task in tasks),
            sharey="row",
            sharex="col",
            height_ratios=[len(names[task]) for task in tasks],
        )
        for line, task in zip(axes, tasks, strict=True):
            for ax, metric in zip(line, panels, strict=True):
                here = rows[(rows["task"] == task) & (rows["metric"] == metric)].set_index("estimator")
                _ratios(ax, here, [looks[name] for name in names[task]])
            if len(tasks) > 1:
                line[0].set_title(task)
        for ax, label in zip(axes[-1], panels.values(), strict=True):
            ax.set_xlabel(f"{label},\nratio to plain training")
        timed = rows[rows["metric"] == "time_ratio"]
        drawing.title(
            figure,
            "What a training step costs",
            f"{', '.join(tasks)}; {drawing.place(rows)}; 95 % intervals",
            f"{drawing.counts(timed['n'])} timings in turn with plain steps" if len(timed) else "",
            families.rule("shown", panels[next(iter(panels))], {n for mine in names.values() for n in mine}, looks),
        )
    return figure


def _ratios(ax: Axes, rows: pd.DataFrame, looks: Sequence[palette.Look]) -> None:
    ax.axvline(1, color=drawing.MUTED, lw=0.9)
    for y, look in enumerate(looks):
        if look.label in rows.index:
            found = rows.loc[look.label]
            drawing.errors(ax, look, (found["value"], found["low"], found["high"]), y)
            end = (np.nanmax([found["high"], found["value"]]), y)
            ax.annotate(f"{found['value']:.2f}", end, (7, 0), textcoords="offset points", va="center", fontsize=8.5,
                        color=drawing.MUTED)  # fmt: skip
    ax.set_yticks(range(len(looks)), [drawing.wrapped(look.label) for look in looks])
    ax.set_ylim(len(looks) - 0.4, -0.6)
    ax.margins(x=0.18)
    low, high = ax.get_xlim()
    room = max(0.0, _SPAN - (high - low)) / 2
    ax.set_xlim(low - room, high + room)
