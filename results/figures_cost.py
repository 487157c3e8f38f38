"""Figures of what an estimate costs: bytes by what they hold, and time and multiply-accumulates of a step."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from results import drawing, palette, summary

_PARTS = {
    "parameters": "#4c5f7a",
    "gradients": "#7f95b2",
    "optimizer": "#b9c6d6",
    "activations": "#d98c4a",
    "other": "#cfcfcf",
}
_UNITS = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}


def memory(frame: pd.DataFrame) -> Figure | None:
    """Bytes at the peak of one step, stacked by what holds them; plain training on top, failures as words."""
    rows = summary.pool(summary.measured(frame, "bytes", suite="memory"))
    rows = rows[rows["part"].isin([*_PARTS, "peak"])]
    if rows.empty:
        return None
    tried = frame[frame["suite"] == "memory"]
    tasks = sorted(rows["task"].unique())
    tables, failures = [], []
    for task in tasks:
        sizes = rows[rows["task"] == task].pivot_table(index="estimator", columns="part", values="value")
        total = sizes["peak"] = sizes.get("peak", sizes.sum(axis=1))
        tables.append(sizes.loc[sorted(sizes.index, key=lambda name: (name != "plain", total[name]))])
        failed = tried[(tried["task"] == task) & (tried["status"] != "ok") & ~tried["estimator"].isin(sizes.index)]
        failures.append(failed.groupby("estimator")["status"].first())
    heights = [len(sizes) + len(failed) for sizes, failed in zip(tables, failures, strict=True)]
    with drawing.style():
        figure, axes = drawing.grid(len(tasks), 1, 1.0 + 0.29 * sum(heights) + 0.7 * len(tasks), height_ratios=heights)
        for ax, task, sizes, failed in zip(axes[:, 0], tasks, tables, failures, strict=True):
            unit, factor = next(
                (name, size) for name, size in _UNITS.items() if sizes["peak"].max() > size / 2 or size == 1
            )
            sizes = sizes / factor
            left = np.zeros(len(sizes))
            for part, colour in _PARTS.items():
                if part in sizes:
                    width = sizes[part].fillna(0).to_numpy()
                    ax.barh(
                        range(len(sizes)), width, left=left, color=colour, height=0.68, label=part, ec="white", lw=0.6
                    )
                    left += width
            totals = sizes["peak"].to_numpy()
            for y, total in enumerate(totals):
                ratio = f"  {total:.3g}" + (f"  ({total / totals[0]:.2f}×)" if sizes.index[0] == "plain" and y else "")
                ax.text(max(total, left[y]), y, ratio, va="center", fontsize=8.5)
            for y, status in enumerate(failed, len(sizes)):
                ax.text(0, y, f" {status}", va="center", color=drawing.MUTED, style="italic", fontsize=8.5)
            names = [*sizes.index, *failed.index]
            ax.set_yticks(range(len(names)), drawing.wrapped(names))
            ax.set_ylim(len(names) - 0.4, -0.6)
            ax.margins(x=0.2)
            ax.grid(False, axis="y")
            ax.set_xlabel(f"bytes at the peak of one training step, {unit}")
            if len(tasks) > 1:
                ax.set_title(task)
        note = f"{', '.join(tasks)}; {summary.context_label(rows)}; right: peak, ratio to plain"
        drawing.title(figure, "Memory of one training step", note)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=5)
    return figure


def overhead(frame: pd.DataFrame) -> Figure | None:
    """Time and multiply-accumulates of one step as ratios to a plain one."""
    rows = summary.pool(summary.measured(frame, ["time_ratio", "macs_ratio"], suite="overhead"))
    if rows.empty:
        return None
    tasks = sorted(rows["task"].unique())
    looks = palette.looks(rows)
    names = {
        task: rows[(rows["task"] == task)].groupby("estimator")["value"].mean().sort_values(kind="stable").index
        for task in tasks
    }
    panels = {"time_ratio": "time of a step", "macs_ratio": "multiply-accumulates"}
    panels = {metric: label for metric, label in panels.items() if (rows["metric"] == metric).any()}
    with drawing.style():
        figure, axes = drawing.grid(
            len(tasks),
            len(panels),
            1.4 + sum(0.27 * len(names[task]) + 0.35 for task in tasks),
            sharey="row",
            sharex="col",
            height_ratios=[len(names[task]) for task in tasks],
        )
        for line, task in zip(axes, tasks, strict=True):
            for ax, (metric, label) in zip(line, panels.items(), strict=True):
                here = rows[(rows["task"] == task) & (rows["metric"] == metric)].set_index("estimator")
                ax.axvline(1, color=drawing.MUTED, lw=0.9)
                for y, name in enumerate(names[task]):
                    if name in here.index:
                        found = here.loc[name]
                        drawing.errors(ax, looks[name], (found["value"], found["low"], found["high"]), y)
                        end = (np.nanmax([found["high"], found["value"]]), y)
                        ax.annotate(f"{found['value']:.2f}", end, (7, 0), textcoords="offset points", va="center",
                                    fontsize=8, color=drawing.MUTED)  # fmt: skip
                ax.set_yticks(range(len(names[task])), drawing.wrapped(names[task]))
                ax.set_ylim(len(names[task]) - 0.4, -0.6)
                ax.margins(x=0.18)
                if task == tasks[-1]:
                    ax.set_xlabel(f"{label},\nratio to a plain step")
                if metric == next(iter(panels)) and len(tasks) > 1:
                    ax.set_title(task)
        timed = rows[rows["metric"] == "time_ratio"]
        note = f"{', '.join(tasks)}; {summary.context_label(rows)}; 95 % intervals"
        note += f", {drawing.counts(timed['n'])} interleaved timings" if len(timed) else ""
        drawing.title(figure, "What a training step costs", note)
    return figure
