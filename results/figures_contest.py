"""The figure of the contest: what is left of a gradient's error at equal compute."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from results import contest, drawing, families, palette

AT = 100.0
"""The compute at which the figure asks who is best."""
_POINTS = {"uniform": "uniform q", "mid": "q half-way", "peaked": "peaked q"}
KNOWN = 5.0
"""Ends of an interval that are further apart are not filled between: bands of what nobody knows hide the rest."""


def frontier_of_error(frame: pd.DataFrame) -> Figure | None:
    """Error of a gradient at equal compute, bias² + variance · cost / C, in units of ‖∇‖²: unbiased estimators as solid
    lines, biased ones dashed, dots where undetected bias leaves no more than an upper bound."""
    found = list(contest.groups(frame))
    if not found:
        return None
    parts = list(dict.fromkeys(where["part"] for where, _ in found))
    points = list(dict.fromkeys(where["point"] for where, _ in found))
    of_contest = frame[frame["suite"] == "contest"]
    look = palette.looks(of_contest[of_contest["metric"] == "mse_variance"])
    names = _named(found, look)
    unbiased = {one.estimator for _, group in found for one in group if one.unbiased}
    with drawing.style():
        height = 1.8 + 2.7 * len(parts)
        figure, axes = drawing.grid(len(parts), len(points), height, sharex=True, sharey="row")
        for where, group in found:
            ax = axes[parts.index(where["part"]), points.index(where["point"])]
            ax.axhspan(0.5, 1e9, color="#f0f0f0", lw=0, zorder=0)
            ax.axhline(1, color=drawing.MUTED, lw=0.9)
            for one in (one for one in group if one.estimator in names):
                value, low, high = one.error(contest.GRID)
                colour = look[one.estimator].colour
                ax.plot(contest.GRID, value, color=colour, lw=1.7, ls="-" if one.unbiased else "--")
                known = high < KNOWN * low
                ax.fill_between(contest.GRID, low, high, known, color=colour, alpha=0.15, lw=0)
                if not known.all():  # where it is, the dots go on from the end of the band
                    ax.plot(contest.GRID[~known], high[~known], color=colour, lw=1.1, ls=":")
            ax.set(xscale="log", yscale="log", xlim=contest.GRID[[0, -1]], ylim=(1e-3, 30))
            ax.set_title(f"{where['part']}, {_POINTS.get(where['point'], where['point'])}")
        for line in axes:
            line[0].set_ylabel("squared error / ‖∇‖²")
        for ax in axes[-1]:
            ax.set_xlabel("compute C, in plain training steps")
        n = pd.Series([one.n for _, group in found for one in group])
        drawing.title(
            figure,
            "Error of the gradient at equal compute",
            f"{of_contest['task'].iloc[0]}; {drawing.place(of_contest)}",
            f"{drawing.counts(n)} estimates, bands: 95 % intervals",
            "solid: unbiased, dashed: biased; dots: upper bound on the error from undetected bias",
            "grey: more than half of ‖∇‖²; line at 1: the error of always answering zero",
            families.rule("shown", f"error at C = {AT:g}", names, look),
        )
        handles = [
            Line2D([], [], color=look[name].colour, lw=2, ls="-" if name in unbiased else "--", label=look[name].text)
            for name in names
        ]
        drawing.legend(figure, handles)
    return figure


def _named(
    found: Sequence[tuple[dict[str, str], Sequence[contest.Contestant]]], look: Mapping[str, palette.Look]
) -> list[str]:
    """Those that the figure shows, the best by the logits' error at C = `AT`: the mean of its logarithm over points."""
    first = found[0][0]["part"]
    errors = [(one.estimator, np.log(one.bias_sq + one.product / AT)) for where, group in found for one in group
              if where["part"] == first]  # fmt: skip
    measure = pd.DataFrame(errors, columns=["estimator", "error"]).groupby("estimator")["error"].mean()
    return families.chosen({label: one.name for label, one in look.items()}, measure)
