"""The one figure that compares everything: a block of rows for each family, a column for each quantity."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from results import drawing, families, palette, summary

_PANELS = {
    "relative bias": ("bias²\n/ ‖∇‖²", "symlog"),
    "variance": ("variance\ntr Σ", "log"),
    "variance × cost": ("variance\n× cost", "log"),
    "peak memory": ("memory\n/ plain", "ratio"),
    "step time": ("time\n/ plain", "ratio"),
    "test accuracy": ("test accu-\nracy, %", "linear"),
    "objective gap": ("gap to the\noptimum", "log"),
    "test ELBO": ("test ELBO\nnats", "linear"),
}
_BEST = {
    "variance × cost": 1,
    "test accuracy": -1,
    "objective gap": 1,
    "test ELBO": -1,
    "step time": 1,
    "peak memory": 1,
    "variance": 1,
    "relative bias": 1,
}
"""What the best of a family is best in, the first that was measured, and whether less is better."""
FEW = 4
"""Estimators of each family."""
_ROW = 0.235  # inches
_TITLES = {name: f"Gradient estimators that learn the {name} of a network" for name in ("width", "depth", "joint")}
_TITLES["joint"] = "Gradient estimators that learn the depth and the width of a network"


def overview(frame: pd.DataFrame, task: str = "width") -> Figure | None:
    """Bias, variance, memory, time and accuracy of the best estimators of each family, with 95 % intervals."""
    return of_quantities(summary.quantities(frame, task), task)


def of_quantities(quantities: Mapping[str, pd.DataFrame], task: str) -> Figure | None:
    """The same from what `summary.quantities` gives. A family is a block of rows below its name."""
    panels = {name: quantities[name] for name in _PANELS if name in quantities}
    if not panels:
        return None
    if "test accuracy" in panels:
        panels["test accuracy"] = panels["test accuracy"].assign(
            **{column: 100 * panels["test accuracy"][column] for column in ("value", "low", "high")}
        )
    looks = palette.looks(pd.concat([rows[["estimator", "name"]] for rows in panels.values()]))
    best = next(name for name in _BEST if name in panels)
    blocks = _blocks(looks, _BEST[best] * panels[best].set_index("estimator")["value"])
    lines = [line for family, labels in blocks.items() for line in (family, *labels)]
    at = {label: y for y, label in enumerate(lines) if label in looks}
    panels = {name: rows[rows["estimator"].isin(list(at))] for name, rows in panels.items()}
    panels = {name: rows for name, rows in panels.items() if not rows.empty}
    places = sorted({drawing.place(rows) for rows in panels.values()})
    with drawing.style():
        figure, axes = drawing.grid(1, len(panels), 1.9 + _ROW * len(lines), sharey=True)
        for ax, (name, rows) in zip(axes[0], panels.items(), strict=True):
            _draw(ax, name, rows, at, looks)
            place = f"\n{drawing.place(rows)}" if len(places) > 1 else ""
            ax.set_xlabel(_counts(rows["n"]) + place, fontsize=8.5, color=drawing.MUTED)
        _head(axes[0, 0], lines, set(blocks))
        figure.align_xlabels()
        points = [drawing.point(rows) for rows in panels.values() if "point" in rows and rows["point"].notna().any()]
        drawing.title(
            figure,
            _TITLES.get(task, f"Gradient estimators on the task {task}"),
            places[0] if len(places) == 1 else "",
            f"gradients of the logits {points[0]}" if points else "",
            "95 % intervals; open: the interval includes 0" if "relative bias" in panels else "95 % intervals",
            families.rule(f"shown, at most {FEW} of a family", best, at, looks),
        )
    return figure


def _blocks(looks: Mapping[str, palette.Look], measure: pd.Series) -> dict[str, list[str]]:
    """The labels shown of each family that there is."""
    found = {}
    for family in families.FAMILIES:
        names = {label: look.name for label, look in looks.items() if look.family == family}
        if names:
            found[family] = families.chosen(names, measure, FEW)
    return found


def _draw(ax: Axes, name: str, rows: pd.DataFrame, at: Mapping[str, int], looks: Mapping[str, palette.Look]) -> None:
    """One quantity of all estimators."""
    for i, y in enumerate(at.values()):
        if i % 2 == 0:
            ax.axhspan(y - 0.5, y + 0.5, color="#f5f5f5", lw=0, zorder=0)
    far = drawing.beyond(rows) if name == "relative bias" else pd.Series(False, index=rows.index)
    title, scale = _PANELS[name]
    nothing = drawing.rounding(rows["value"]) & (scale == "log")
    side = ax.get_yaxis_transform()
    for line in rows.itertuples():
        y = at[line.estimator]
        if far[line.Index]:
            ax.text(0.98, y, f"{line.value:.0e}".replace("e+0", "e"), ha="right", va="center", fontsize=8.5,
                    transform=side, color=drawing.MUTED)  # fmt: skip
        elif nothing[line.Index]:
            ax.text(0.02, y, "0", transform=side, va="center", fontsize=8.5)
        else:
            hollow = name == "relative bias" and not line.low > 0
            drawing.errors(ax, looks[line.estimator], (line.value, line.low, line.high), y, hollow=hollow)
    reference = {"peak memory": 1.0, "step time": 1.0, "relative bias": 0.0}.get(name)
    if name == "test accuracy" and "plain" in set(rows["estimator"]):
        reference = float(rows.loc[rows["estimator"] == "plain", "value"].iloc[0])
    if reference is not None:
        ax.axvline(reference, color=drawing.MUTED, lw=0.9, zorder=1)
    _scale(ax, scale, rows)
    ax.set_title(title, fontsize=9.5)
    ax.grid(False, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def _head(ax: Axes, lines: Sequence[str], heads: Collection[str]) -> None:
    """The names of rows, those of families above theirs in bold and in their colour."""
    ax.set_yticks(range(len(lines)), [one if one in heads else drawing.wrapped(one, 40) for one in lines], fontsize=8.5)
    for one, label in zip(lines, ax.get_yticklabels(), strict=True):
        if one in heads:
            label.set(fontweight="bold", color=palette.family_ink(one), va="center")
    ax.set_ylim(len(lines) - 0.5, -0.5)


def _counts(n: pd.Series) -> str:
    """As `drawing.counts`, in thousands where there are many, for a narrow panel."""
    low, high = (f"{value / 1000:.3g}k" if value >= 1000 else f"{value:.0f}" for value in (n.min(), n.max()))
    return f"n = {low}" if low == high else f"n = {low}-{high}"


def _scale(ax: Axes, scale: str, rows: pd.DataFrame) -> None:
    if scale == "symlog":
        near = rows[~drawing.beyond(rows)]
        threshold = drawing.symlog(ax.xaxis, near)
        above = [tick for tick in ax.get_xticks() if tick > threshold]
        ticks = [0, *above[:1], *above[1:][-1:]]  # a panel is narrow
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        return
    if scale == "ratio":  # of what costs about as much as plain training and, by some, a hundred times as much
        ax.set_xscale("log")
        low, high = float(rows["value"].min()), max(float(rows["value"].max()), 2.0)
        ticks = [tick for tick in (1, 2, 10, 100, 1000) if tick <= high * 1.2]
        ticks = sorted({1, *(tick for tick in ticks if tick != 2 or high < 20)})[-3:]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.xaxis.set_minor_locator(NullLocator())
        room = (high / low) ** 0.12
        ax.set_xlim(min(low, 1) / room, high * room)
        return
    positive = rows.loc[~drawing.rounding(rows["value"]), "value"]
    if scale == "log" and not positive.empty:
        ax.set_xscale("log")
        low, high = np.floor(np.log10(positive.min())), np.ceil(np.log10(positive.max()))
        ax.set_xticks(10.0 ** np.arange(low, high + 1, max(1, np.ceil((high - low) / 2))))
        ax.xaxis.set_minor_locator(NullLocator())
    else:
        ax.locator_params(axis="x", nbins=3)
