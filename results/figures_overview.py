"""The one figure that compares everything: estimators as rows, what is measured of them as columns."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from results import drawing, palette, summary

_PANELS = {
    "relative bias": ("bias²\n/ ‖∇‖²", "symlog"),
    "variance": ("variance\ntr Σ", "log"),
    "variance × cost": ("variance\n× cost", "log"),
    "peak memory": ("memory\n/ plain", "ratio"),
    "step time": ("time\n/ plain", "ratio"),
    "test accuracy": ("accuracy\n%, test", "linear"),
    "objective gap": ("gap to the\noptimum", "log"),
    "test ELBO": ("test ELBO\nnats", "linear"),
}
_TITLES = {name: f"Gradient estimators that learn the {name} of a network" for name in ("width", "depth", "joint")}


def overview(frame: pd.DataFrame, task: str = "width") -> Figure | None:
    """Bias, variance, memory, time and accuracy of every estimator on one task, with 95 % intervals."""
    quantities = summary.quantities(frame, task)
    panels = {name: quantities[name] for name in _PANELS if name in quantities}
    if not panels:
        return None
    if "test accuracy" in panels:
        panels["test accuracy"] = panels["test accuracy"].assign(
            **{column: 100 * panels["test accuracy"][column] for column in ("value", "low", "high")}
        )
    together = pd.concat([rows[["estimator", "name"]] for rows in panels.values()])
    names, looks = summary.ordered(together), palette.looks(together)
    places = sorted({summary.context_label(rows) for rows in panels.values()})
    with drawing.style():
        figure, axes = drawing.grid(1, len(panels), 1.75 + 0.27 * len(names), sharey=True)
        for ax, (name, rows) in zip(axes[0], panels.items(), strict=True):
            for y in range(0, len(names), 2):
                ax.axhspan(y - 0.5, y + 0.5, color="#f5f5f5", lw=0, zorder=0)
            if name == "relative bias":
                for line in rows[drawing.beyond(rows)].itertuples():
                    ax.text(0.98, names.index(line.estimator), f"{line.value:.0g}", ha="right", va="center",
                            fontsize=8.5, transform=ax.get_yaxis_transform(), color=drawing.MUTED)  # fmt: skip
                rows = rows[~drawing.beyond(rows)]
            nothing = drawing.rounding(rows["value"])
            for line in rows.itertuples():
                if _PANELS[name][1] == "log" and nothing[line.Index]:
                    ax.text(0.02, names.index(line.estimator), "0", transform=ax.get_yaxis_transform(), va="center")
                    continue
                hollow = name == "relative bias" and not line.low > 0
                at = names.index(line.estimator)
                drawing.errors(ax, looks[line.estimator], (line.value, line.low, line.high), at, hollow=hollow)
            label, scale = _PANELS[name]
            _scale(ax, scale, rows)
            if name in ("peak memory", "step time"):
                ax.axvline(1, color=drawing.MUTED, lw=0.9, zorder=1)
            elif name == "relative bias":
                ax.axvline(0, color=drawing.MUTED, lw=0.9, zorder=1)
            elif name == "test accuracy" and "plain" in set(rows["estimator"]):
                ax.axvline(
                    float(rows.loc[rows["estimator"] == "plain", "value"].iloc[0]),
                    color=drawing.MUTED,
                    lw=0.9,
                    zorder=1,
                )
            ax.set_title(label, fontsize=9.5)
            place = f"\n{summary.context_label(rows)}" if len(places) > 1 else ""
            ax.set_xlabel(_counts(rows["n"]) + place, fontsize=8.5, color=drawing.MUTED)
            ax.grid(False, axis="y")
            ax.tick_params(axis="y", length=0)
            ax.spines["left"].set_visible(False)
        axes[0, 0].set_yticks(range(len(names)), drawing.wrapped(names), fontsize=8.5)
        axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
        figure.align_xlabels()
        where = f"{places[0]}; " if len(places) == 1 else ""
        points = sorted({str(p) for rows in panels.values() if "point" in rows for p in rows["point"].dropna()})
        gradients = f"gradients of the logits at {', '.join(points)} q; " if points else ""
        note = f"{where}{gradients}95 % intervals; open: within error of 0"
        drawing.title(figure, _TITLES.get(task, f"Gradient estimators on the task {task}"), note)
    return figure


def _counts(n: pd.Series) -> str:
    """As `drawing.counts`, in thousands where there are many, for a narrow panel."""
    low, high = (f"{value / 1000:.3g}k" if value >= 1000 else f"{value:.0f}" for value in (n.min(), n.max()))
    return f"n = {low}" if low == high else f"n = {low}-{high}"


def _scale(ax: Axes, scale: str, rows: pd.DataFrame) -> None:
    if scale == "symlog":
        threshold = drawing.symlog(ax.xaxis, rows)
        above = [tick for tick in ax.get_xticks() if tick > threshold]
        ticks = [0, *above[:1], *above[1:][-1:]]  # a panel is narrow
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        return
    if scale == "ratio":  # of what costs about as much as plain training and, by some, a hundred times as much
        ax.set_xscale("log")
        high = max(float(rows["value"].max()), 2.0)
        ticks = [tick for tick in (1, 2, 10, 100, 1000) if tick <= high * 1.2][-3:]
        ax.set_xticks(sorted({1, *ticks}), [f"{tick:g}" for tick in sorted({1, *ticks})])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.margins(x=0.12)
        return
    positive = rows.loc[~drawing.rounding(rows["value"]), "value"]
    if scale == "log" and not positive.empty:
        ax.set_xscale("log")
        low, high = np.floor(np.log10(positive.min())), np.ceil(np.log10(positive.max()))
        ax.set_xticks(10.0 ** np.arange(low, high + 1, max(1, np.ceil((high - low) / 2))))
        ax.xaxis.set_minor_locator(NullLocator())
    else:
        ax.locator_params(axis="x", nbins=3)
        ax.margins(x=0.12)
