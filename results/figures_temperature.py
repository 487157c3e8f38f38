"""Figures of the temperature: its part in bias and variance, and the paper's Figure 2, what a Concrete distribution
over widths looks like (Grathwohl et al. 2018).
"""

import itertools

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from results import drawing, families, labels, palette, summary
from results.figures_gradient import VARIANCE


def temperature(frame: pd.DataFrame) -> Figure | None:
    """Variance and squared bias against temperature, a line per estimator that was measured at two or more."""
    variance = summary.one_point(summary.pool(summary.measured(frame, "variance", part="logits")))
    bias = summary.relative_bias(frame)
    bias = summary.one_point(bias[bias["part"] == "logits"])
    panels = [
        (_by_temperature(variance, frame), VARIANCE, "Variance"),
        (_by_temperature(bias, frame), "squared bias / ‖∇‖²", "Squared bias"),
    ]
    if any(rows.empty for rows, *_ in panels):
        return None
    several = len({task for rows, *_ in panels for task in rows["task"]}) > 1
    names = {(str(task), str(line)): str(name) for rows, *_ in panels
             for task, line, name in rows[["task", "line", "name"]].itertuples(index=False)}  # fmt: skip
    measure = panels[0][0].groupby(["task", "line"])["value"].mean()
    kept = families.chosen({f"{line}|{task}": name for (task, line), name in names.items()},
                           measure.set_axis([f"{line}|{task}" for task, line in measure.index]))  # fmt: skip
    with drawing.style():
        figure, axes = drawing.grid(1, 2, 3.9)
        dashes = dict(zip(sorted({task for task, _ in names}), itertools.cycle(("-", "--", ":")), strict=False))
        named = []
        for ax, (rows, label, headline) in zip(axes[0], panels, strict=True):
            for (task, which, name), line in rows.groupby(["task", "line", "name"]):
                if f"{which}|{task}" not in kept:
                    continue
                look = palette.Look(str(which), str(name))
                line = line.sort_values("temperature")
                ends = line["value"] - line["low"], line["high"] - line["value"]
                ax.errorbar(
                    line["temperature"],
                    line["value"],
                    yerr=np.clip(np.nan_to_num(np.vstack(ends)), 0, None),
                    color=look.colour,
                    marker=look.marker,
                    ls=dashes[task],
                    lw=1.6,
                    elinewidth=1.3,
                )
                said = drawing.wrapped(look.label, 20) + (f",\n{task}" if several else "")
                named.append(labels.Named(ax, line["temperature"].iloc[-1], line["value"].iloc[-1], said, look.ink))
            ax.set(xscale="log", xlabel="temperature", ylabel=label, title=headline)
            ax.xaxis.set_major_locator(FixedLocator(sorted(rows["temperature"].unique())))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.xaxis.set_minor_locator(NullLocator())
        axes[0, 0].set_yscale("log")
        bias_rows = panels[1][0]
        drawing.symlog(axes[0, 1].yaxis, bias_rows)
        axes[0, 1].axhline(0, color=drawing.MUTED, lw=0.9)
        drawing.title(
            figure,
            "Variance and bias against the temperature",
            f"{', '.join(sorted(dashes))}; {drawing.place(bias_rows)}",
            f"gradient of the logits, {drawing.point(bias_rows)}" if bias_rows["point"].notna().any() else "",
            f"95 % intervals, {drawing.counts(bias_rows['n'])} draws",
            families.rule("shown", "variance", kept, [f"{line}|{task}" for task, line in names]),
        )
        labels.at_ends(figure, named)
    return figure


def concrete_widths(frame: pd.DataFrame) -> Figure | None:
    """The paper's Figure 2: samples of a categorical over widths and their prefix masks at three temperatures."""
    rows = frame[(frame["suite"] == "sampling") & (frame["status"] == "ok") & frame["value"].notna()]
    if rows.empty:
        return None
    kinds = {
        "probability": "categorical\nprobability",
        "soft_sample": "Concrete\nsample",
        "soft_mask": "mask of the\nConcrete sample",
        "hard_sample": "one-hot\nsample",
        "hard_mask": "mask of the\none-hot sample",
    }
    kinds = {kind: label for kind, label in kinds.items() if (rows["metric"] == kind).any()}
    points = sorted(rows["point"].dropna().unique(), key=float, reverse=True)
    parts = sorted(rows["part"].dropna().unique(), key=float)
    # Samples have an order and no other meaning: one hue, from light to dark.
    colours = {part: palette.shade("concrete", i / max(len(parts) - 1, 1)) for i, part in enumerate(parts)}
    with drawing.style():
        figure, axes = drawing.grid(len(kinds), len(points), 1.15 * len(kinds) + 1, sharex=True, sharey="row")
        for line, (kind, label) in zip(axes, kinds.items(), strict=True):
            for ax, point in zip(line, points, strict=True):
                here = rows[(rows["metric"] == kind) & (rows["point"].fillna(point) == point)]
                for part, sample in here.groupby(here["part"].fillna("")):
                    sample = sample.drop_duplicates("x").sort_values("x")
                    colour = drawing.MUTED if kind == "probability" else colours.get(part, drawing.MUTED)
                    ax.plot(sample["x"], sample["value"], color=colour, lw=1.5, alpha=0.9, drawstyle="steps-mid")
                if kind != "probability":
                    ax.set_ylim(-0.06, 1.06)
            line[0].set_ylabel(label)
        for ax, point in zip(axes[0], points, strict=True):
            ax.set_title(f"temperature {point}")
        for ax in axes[-1]:
            ax.set_xlabel("width k")
        drawing.title(
            figure,
            "A Concrete distribution over widths",
            f"{len(parts)} samples, one tint each; the mask at k is the sum of the sample from k on (Eq. 6)",
        )
    return figure


def _by_temperature(rows: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of estimators that differ in nothing but a constant temperature, with it and the label of their line."""
    temperatures, lines = {}, {}
    for name, family in frame.drop_duplicates("estimator").groupby("name"):
        options = family[[column for column in family if column.startswith("option.")]]
        differing = [column for column in options if options[column].map(repr).nunique() > 1]
        for label, one in zip(family["estimator"], options.to_dict("records"), strict=True):
            temperatures[label] = _constant(one.get("option.temperature"))
            rest = [f"{o.removeprefix('option.')}={one[o]}" for o in differing if o != "option.temperature"]
            lines[label] = f"{name}[{', '.join(rest)}]" if rest else str(name)
    rows = rows.assign(temperature=rows["estimator"].map(temperatures), line=rows["estimator"].map(lines))
    rows = rows[rows["temperature"].notna()]
    return rows[rows.groupby(["task", "line"])["temperature"].transform("nunique") > 1]


def _constant(temperature: object) -> float:
    """A temperature; NaN where there is none, or a schedule of them."""
    return float(temperature) if isinstance(temperature, (int, float)) else np.nan
