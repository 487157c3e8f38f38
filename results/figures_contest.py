"""The figure of the contest: what is left of a gradient's error at equal compute."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from results import contest, drawing, palette, summary

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
    names = summary.ordered(of_contest[of_contest["metric"] == "mse_variance"])
    look = _colours(names, palette.looks(of_contest))
    unbiased = {one.estimator for _, group in found for one in group if one.unbiased}
    with drawing.style():
        height = 1.3 + 2.9 * len(parts) + 0.11 * len(names)
        figure, axes = drawing.grid(len(parts), len(points), height, sharex=True, sharey="row")
        for where, group in found:
            ax = axes[parts.index(where["part"]), points.index(where["point"])]
            ax.axhspan(0.5, 1e9, color="#f0f0f0", lw=0, zorder=0)
            ax.axhline(1, color=drawing.MUTED, lw=0.9)
            for one in group:
                value, low, high = one.error(contest.GRID)
                colour = look[one.estimator]
                ax.plot(contest.GRID, value, color=colour, lw=1.7, ls="-" if one.unbiased else "--")
                known = high < KNOWN * low
                ax.fill_between(contest.GRID, low, high, known, color=colour, alpha=0.15, lw=0)
                if not known.all():  # where it is, the dots go on from the end of the band
                    ax.plot(contest.GRID[~known], high[~known], color=colour, lw=1.1, ls=":")
            ax.set(xscale="log", yscale="log", xlim=contest.GRID[[0, -1]], ylim=(1e-3, 30))
            ax.set_title(f"{where['part']}, {where['point']} q")
        for line in axes:
            line[0].set_ylabel("error / ‖∇‖²")
        for ax in axes[-1]:
            ax.set_xlabel("compute C, plain steps")
        n = pd.Series([one.n for _, group in found for one in group])
        drawing.title(
            figure,
            "What is left of a gradient's error at equal compute",
            f"{of_contest['task'].iloc[0]}; {summary.context_label(of_contest)}; 95 % intervals, dots: upper bound on "
            f"the error from undetected bias; grey: above half of ‖∇‖²; {drawing.counts(n)}",
        )
        handles = [
            Line2D([], [], color=look[name], lw=2, ls="-" if name in unbiased else "--", label=name) for name in names
        ]
        drawing.legend(figure, [], extra=[*handles, Line2D([], [], color=drawing.MUTED, lw=0.9, label="zero")])
    return figure


def _colours(labels: list[str], looks: dict[str, palette.Look]) -> dict[str, str]:
    """Colours: where several labels are of one estimator, shades of its hue in the order of the labels."""
    found = {}
    for label in labels:
        name = looks[label].name
        family = [other for other in labels if looks[other].name == name]
        alone = len(family) == 1
        found[label] = looks[label].colour if alone else palette.shade(name, family.index(label) / (len(family) - 1))
    return found
