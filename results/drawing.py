"""What all figures share: their style, their notes, axes that explain themselves, and intervals."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from results import palette, summary

WIDTH = 8.5  # inches, a little more than the width of a README
DPI = 150
NOTE = 125  # characters that fit below a headline
LONG = 100  # characters of the changes to a preset that a note spells out
MUTED = "#6b6b6b"
POINTS = {"uniform": "at the start of training", "mid": "half-way through training", "peaked": "late in training"}
"""Points of training in words; q is uniform, between and peaked there."""
_STYLE: Any = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "axes.edgecolor": "#9a9a9a",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
}


@contextmanager
def style() -> Iterator[None]:
    """seaborn's white grid in our sizes, for the duration and without touching pyplot."""
    with rc_context({**sns.axes_style("whitegrid"), **_STYLE}):
        yield


def grid(rows: int, columns: int, height: float, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure of README width with (rows, columns) axes, ``height`` inches in all."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def title(figure: Figure, text: str, *notes: str) -> None:
    """A headline with quieter lines of conditions below it, all at the left. Empty notes are left out."""
    note = "; ".join(note for note in notes if note)
    lines = textwrap.wrap(note, NOTE, break_long_words=False)
    room = "\n " * max(1, len(lines))
    headline = figure.suptitle(text + room, x=0.01, ha="left", fontsize=12, fontweight="bold", linespacing=1.35)
    shown = next(ax for ax in figure.axes if ax.get_visible())
    below = shown.annotate(
        "\n".join(lines), (0, 0), xycoords=headline, va="bottom", color=MUTED, fontsize=9, linespacing=1.5
    )
    below.set_in_layout(False)  # its room is that of the headline's further lines


def errors(ax: Axes, look: palette.Look, x: object, y: object, *, size: float = 6.5, hollow: bool = False) -> None:
    """A point of an estimator: ``x`` and ``y`` are numbers, or (value, low, high) where there is an interval."""
    (px, ex), (py, ey) = _bounds(x), _bounds(y)
    colour = look.colour
    if ex is not None or ey is not None:
        (left, right), (low, high) = ex or [px, px], ey or [py, py]
        ax.plot([left, right, np.nan, px, px], [py, py, np.nan, low, high], color=colour, lw=1.3, alpha=0.7, zorder=3)
    ax.plot(
        px,
        py,
        look.marker,
        color=colour,
        ms=size,
        mfc="white" if hollow else colour,
        mec=colour,
        mew=1.3 if hollow else 0.4,
        zorder=3,
    )


def _bounds(given: object) -> tuple[float, list[float] | None]:
    if not isinstance(given, tuple):
        return float(given), None  # type: ignore[arg-type]
    value, low, high = given
    if np.isnan([low, high]).any():
        return value, None
    return value, [min(low, value), max(high, value)]


def legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """One legend for the whole figure, below it, in as many columns as fit."""
    columns = min(4, max(1, 118 // (max(len(str(handle.get_label())) for handle in handles) + 6)))
    figure.legend(handles=handles, loc="outside lower left", ncols=columns, handletextpad=0.5, columnspacing=1.4)


def symlog(axis: Axis, rows: pd.DataFrame) -> float:
    """Make an axis linear around zero, as far as half the intervals are wide, and return how far that is.

    If all values with their intervals are less than twice as far, the axis is linear as a whole.
    """
    threshold, ticks = linear_within(rows)
    if np.nanmax(rows[["value", "low", "high"]].abs()) < 2 * threshold:
        return threshold
    scale = axis.axes.set_xscale if isinstance(axis, XAxis) else axis.axes.set_yscale
    scale("symlog", linthresh=threshold, linscale=0.6)
    axis.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())
    return threshold


def linear_within(rows: pd.DataFrame, part: float = 0.5) -> tuple[float, list[float]]:
    """Up to which distance from zero an axis of values with intervals is best linear, and its ticks.

    Args:
        rows: `value`, `low` and `high`.
        part: of the intervals that are to be narrower than the linear part.
    """
    widths = np.nan_to_num((rows["high"] - rows["low"]).abs())
    threshold = 10.0 ** np.ceil(np.log10(max(1e-4, float(np.quantile(widths, part)) / 2)))
    top, bottom = np.nanmax(rows[["value", "high"]]), np.nanmin(rows[["value", "low"]])
    decades = np.arange(np.log10(threshold), np.log10(max(top, threshold)) + 1)
    below = [-threshold] if bottom < -threshold / 2 else []
    return float(threshold), [*below, 0.0, *map(float, 10.0 ** decades[:: max(1, len(decades) // 3)])]


def beyond(bias: pd.DataFrame) -> pd.Series:
    """Where squared bias / ‖∇‖² is above 100 with its whole interval, if it is not everywhere.

    Such an estimator follows another gradient, and its point would only flatten what the others do.
    """
    far = bias["low"] > 100
    return far & ~far.all()


def rounding(values: pd.Series) -> pd.Series:
    """Where values are zero but for the rounding of others: a log axis has no place for them."""
    return values <= 1e-12 * values.max()


def band(ax: Axes, look: palette.Look, curve: pd.DataFrame) -> None:
    """A curve of pooled rows over ``x``, with its interval as a band where there is one."""
    curve = curve.sort_values("x")
    colour = look.colour
    ax.plot(curve["x"], curve["value"], color=colour, lw=1.8)
    ax.fill_between(curve["x"], curve["low"], curve["high"], color=colour, alpha=0.1, lw=0)


def wrapped(label: str, width: int = 26) -> str:
    """The label of an estimator in words and in lines short enough to leave room for what is drawn beside them."""
    return "\n".join(textwrap.wrap(palette.text(label), width, break_long_words=False))


def place(rows: pd.DataFrame) -> str:
    """Preset and data set of some rows; of a preset with long changes only how many there are."""
    found = []
    for preset, dataset in rows[summary.CONTEXT].drop_duplicates().itertuples(index=False):
        name, _, changes = str(preset).partition("[")
        if len(changes) > LONG:
            preset = f"{name} with {len(palette.options(str(preset)))} settings changed"
        found.append(summary.label(str(preset), str(dataset)))
    return "; ".join(found)


def point(rows: pd.DataFrame) -> str:
    """The points of training that rows are of, in words."""
    return ", ".join(POINTS.get(one, one) for one in rows["point"].dropna().unique())


def grey(ax: Axes, x: float, y: float) -> None:
    """A point that a figure shows and does not name."""
    ax.plot(x, y, "o", color=palette.CONTEXT, ms=4.5, mew=0, zorder=2)


def counts(n: pd.Series) -> str:
    """``n = 5`` or ``n = 3-5``."""
    low, high = int(n.min()), int(n.max())
    return f"n = {low:,}" if low == high else f"n = {low:,}-{high:,}"
