"""Figures of the gradient estimates themselves: bias against variance, the temperature's part in both, and the paper's
Figure 2, what a Concrete distribution over widths looks like (Grathwohl et al. 2018).
"""

import itertools

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from results import drawing, palette, summary


def bias_variance(frame: pd.DataFrame) -> Figure | None:
    """Squared bias relative to the squared gradient against variance; a column per point of training, a row per task.

    The area of a marker is the number of objective evaluations. The bias is an unbiased estimate and so may be
    negative: the axis is linear around zero, and an open marker says not distinguishable from zero. Where it is a
    hundred times the squared gradient or more, only its size is written.
    """
    variance = summary.pool(summary.measured(frame, "variance", part="logits"))
    bias = summary.relative_bias(frame)
    cost = summary.measured(frame, "evaluations").groupby(["task", "estimator"])["value"].mean().rename("cost")
    keys = ["task", *summary.CONTEXT, "point", "estimator", "name"]
    both = variance.merge(bias[bias["part"] == "logits"], on=keys, suffixes=("_v", "")).merge(
        cost.reset_index(), on=["task", "estimator"], how="left"
    )
    if both.empty:
        return None
    tasks, points = sorted(both["task"].unique()), _in_order(both["point"].fillna(""))
    looks = palette.looks(both)
    off_scale = drawing.beyond(both)
    with drawing.style():
        legend = 0.07 * both["estimator"].nunique()  # inches, in three columns
        figure, axes = drawing.grid(len(tasks), len(points), 1.1 + 2.9 * len(tasks) + legend, sharey=True, sharex="row")
        for i, task in enumerate(tasks):
            for ax, point in zip(axes[i], points, strict=True):
                here = both[(both["task"] == task) & (both["point"].fillna("") == point)]
                ax.axhline(0, color=drawing.MUTED, lw=0.9)
                far = here[off_scale[here.index]]
                off = "".join(f"\n{line.estimator}: {line.value:.1g}" for line in far.itertuples())
                ax.text(0.98, 0.98, off and f"off the scale{off}", transform=ax.transAxes, ha="right", va="top",
                        fontsize=8, color=drawing.MUTED)  # fmt: skip
                here = here.drop(far.index)
                nothing = drawing.rounding(here["value_v"])
                for line in here.itertuples():
                    if nothing[line.Index]:
                        ax.annotate(f"{line.estimator}: no variance", (0.02, line.value), (0, 4), fontsize=8,
                                    xycoords=ax.get_yaxis_transform(), textcoords="offset points",
                                    color=looks[line.estimator].colour)  # fmt: skip
                        continue
                    size = 5.5 * min(4.0, max(1.0, np.nan_to_num(line.cost))) ** 0.5
                    drawing.errors(
                        ax,
                        looks[line.estimator],
                        (line.value_v, line.low_v, line.high_v),
                        (line.value, line.low, line.high),
                        size=size,
                        hollow=not line.low > 0,
                    )
                ax.set_xscale("log")
                scale = drawing.symlog(ax.yaxis, both[~off_scale])
                ax.set_title(f"{task}, {point}" if point else task)
                ax.set_xlabel("variance, tr Σ of one estimate")
            axes[i, 0].set_ylabel("squared bias / ‖∇‖²")
        n = drawing.counts(both["n"])
        drawing.title(
            figure,
            "Bias against variance of one gradient estimate",
            f"{summary.context_label(both)}; logits; 95 % intervals, {n} draws; linear within ±{scale:g}",
        )
        open_marker = Line2D([], [], marker="o", lw=0, mfc="white", mec=drawing.MUTED, label="bias within error of 0")
        area = Line2D([], [], lw=0, label="larger: more evaluations, up to 4")
        drawing.legend(figure, [looks[name] for name in summary.ordered(both)], extra=[open_marker, area])
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
    tasks = sorted(both["task"].unique())
    looks = palette.looks(both)
    with drawing.style():
        legend = 0.11 * both["estimator"].nunique()  # inches, in two columns
        figure, axes = drawing.grid(len(tasks), 1, 1.3 + 3.9 * len(tasks) + legend)
        for ax, task in zip(axes[:, 0], tasks, strict=True):
            here = both[both["task"] == task]
            ax.set(xscale="log", yscale="log", ylabel="variance, tr Σ of one estimate", title=task)
            for line in here.itertuples():
                drawing.errors(ax, looks[line.estimator], line.cost, (line.value, line.low, line.high))
            ax.margins(0.06)
            ends = np.array(ax.get_xlim())
            low, high = ax.get_ylim()
            for product in 10.0 ** np.arange(np.floor(np.log10(low * ends[0])), np.ceil(np.log10(high * ends[1])) + 1):
                ax.plot(ends, product / ends, color=drawing.MUTED, lw=0.7, ls=":", zorder=1)
            ax.set(xlim=ends, ylim=(low, high))
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.xaxis.set_minor_formatter(NullFormatter())
            if ends[1] < 10 * ends[0]:  # where there is one power of ten or none
                ax.xaxis.set_major_locator(MaxNLocator(5))
        axes[-1, 0].set_xlabel(f"cost of one estimate, {unit}")
        points = ", ".join(both["point"].dropna().unique())
        drawing.title(
            figure,
            "Variance against cost of one gradient estimate",
            f"{summary.context_label(both)}; logits, {points}; 95 % intervals, {drawing.counts(both['n'])} draws",
        )
        drawing.legend(figure, [looks[name] for name in summary.ordered(both)])
    return figure


def temperature(frame: pd.DataFrame) -> Figure | None:
    """Variance and squared bias against temperature, a line per estimator that was measured at two or more."""
    variance = summary.one_point(summary.pool(summary.measured(frame, "variance", part="logits")))
    bias = summary.relative_bias(frame)
    bias = summary.one_point(bias[bias["part"] == "logits"])
    panels = [
        (_by_temperature(variance, frame), "variance, tr Σ of one estimate", "Variance"),
        (_by_temperature(bias, frame), "squared bias / ‖∇‖²", "Squared bias"),
    ]
    if any(rows.empty for rows, *_ in panels):
        return None
    with drawing.style():
        figure, axes = drawing.grid(1, 2, 3.9)
        tasks = sorted(set(panels[0][0]["task"]) | set(panels[1][0]["task"]))
        dashes = dict(zip(tasks, itertools.cycle(("-", "--", ":")), strict=False))
        for ax, (rows, label, headline) in zip(axes[0], panels, strict=True):
            for (task, which, name), line in rows.groupby(["task", "line", "name"]):
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
            ax.set(xscale="log", xlabel="temperature", ylabel=label, title=headline)
        axes[0, 0].set_yscale("log")
        bias_rows = panels[1][0]
        drawing.symlog(axes[0, 1].yaxis, bias_rows)
        axes[0, 1].axhline(0, color=drawing.MUTED, lw=0.9)
        points = ", ".join(bias_rows["point"].dropna().unique())
        drawing.title(
            figure,
            "What the temperature buys and costs",
            f"logits, {points}; {summary.context_label(bias_rows)}; 95 % intervals, "
            f"{drawing.counts(bias_rows['n'])} draws",
        )
        dashed = [Line2D([], [], color=drawing.MUTED, ls=dashes[task], label=task) for task in tasks]
        pairs = pd.concat([rows[["line", "name"]] for rows, *_ in panels]).drop_duplicates().sort_values("line")
        drawing.legend(figure, [palette.Look(*pair) for pair in pairs.itertuples(index=False)], extra=dashed)
    return figure


def concrete_widths(frame: pd.DataFrame) -> Figure | None:
    """The paper's Figure 2: samples of a categorical over widths and their prefix masks at three temperatures."""
    rows = frame[(frame["suite"] == "sampling") & (frame["status"] == "ok") & frame["value"].notna()]
    if rows.empty:
        return None
    kinds = {
        "probability": "categorical\nprobability",
        "soft_sample": "Concrete\nsample",
        "soft_mask": "its mask",
        "hard_sample": "one-hot\nsample",
        "hard_mask": "its mask",
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
            ax.set_xlabel("width index")
        drawing.title(
            figure,
            "A Concrete distribution over widths",
            f"{len(parts)} samples overlaid; mask = reverse cumulative sum (Eq. 6)",
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


def _in_order(points: pd.Series) -> list[str]:
    """Points as training passes them."""
    known = {"uniform": 0, "mid": 1, "peaked": 2}
    return sorted(points.unique(), key=lambda point: (known.get(point, 3), point))
