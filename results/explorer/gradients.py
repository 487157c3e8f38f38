"""Figures of gradient estimates: bias against variance, and the error at equal compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from results import contest, drawing
from results.contest import Contestant
from results.explorer.contests import Group
from results.explorer.numbers import SYMBOLS
from results.explorer.traces import Looks, band, layout, numbers, role, scatter
from results.figures_contest import KNOWN

CONTOURS = (0.1, 0.5)
"""Errors / ‖∇‖² whose lines are drawn at the C that is chosen."""


def bias_variance(group: Group, looks: Looks, origin: Mapping[str, str], costly: bool) -> go.Figure:
    """Squared bias against variance, or variance × cost, in units of ‖∇‖², an estimator each.

    The axis of the bias is linear around zero and logarithmic further out, by the inverse hyperbolic sine.

    Args:
        group: what was measured.
        looks: of every estimator.
        origin: where the numbers of each come from.
        costly: take the variance times the cost.
    """
    lines = pd.DataFrame([_bias(one) for one in group.contestants])
    far = drawing.beyond(lines)
    within, ticks = drawing.linear_within(lines[~far], 0.25)
    traces, none = [], []
    for one, bias in zip(group.contestants, lines.itertuples(), strict=True):
        factor = one.cost[0] / one.norm if costly else 1 / one.norm
        x, error = one.variance[0] * factor, 1.96 * one.variance[1] * factor
        if not x > 1e-12:
            none.append(one.estimator)
            continue
        y, low, high = (_bent(value, within) for value in (bias.value, bias.low, bias.high))
        hollow = "" if bias.low > 0 else "-open"
        traces.append(
            scatter(
                x=numbers([x]), y=numbers([y]), mode="markers", name=escape(one.estimator),
                error_x={"type": "data", "array": numbers([error]), "arrayminus": numbers([min(error, 0.999 * x)])},
                error_y={"type": "data", "array": numbers([high - y]), "arrayminus": numbers([y - low])},
                marker={"symbol": SYMBOLS[looks[one.estimator].marker] + hollow, "size": 10},
                customdata=numbers([bias.value]), text=[_said(one, group.unit, origin.get(one.estimator, ""))],
                hovertemplate="%{text}<extra></extra>", meta=role(one.estimator, "point"),
            )
        )  # fmt: skip
    shown = lines.loc[~far, "value"]
    bottom, top = _bent(min(shown.min(), -within), within), _bent(max(shown.max(), within), within)
    room = 0.1 * (top - bottom)
    figure = go.Figure(traces + (_contours(bottom - room, within) if costly else []))
    label = "variance × cost / ‖∇‖², " + group.unit if costly else "variance of one estimate / ‖∇‖²"
    note = f"{group.part}, {group.point} q; 95 % intervals; open: the interval of the bias includes 0; linear within "
    note += f"±{within:g}."
    if off := [f"{one.estimator}: {line.value:.1g}" for one, line in _chosen(group, lines, far)]:
        note += f" Bias off the scale, zoom out to see: {', '.join(off)}."
    note += f" No variance, so not drawn: {', '.join(none)}." if none else ""
    layout(figure, label, "squared bias / ‖∇‖²", note)
    near = set(lines.loc[~far, "estimator"])
    across = np.log10([trace["x"][0] for trace in traces if trace["meta"]["estimator"] in near] or [1.0])
    figure.update_xaxes(
        type="log", dtick=1, exponentformat="power", range=[float(across.min()) - 0.5, float(across.max()) + 0.5]
    )
    figure.update_yaxes(
        tickvals=numbers([_bent(tick, within) for tick in ticks]), ticktext=[f"{tick:g}" for tick in ticks],
        range=numbers([bottom - room, top + room]), zeroline=True,
    )  # fmt: skip
    for trace in figure.data:
        if trace.meta["role"] == "contour":
            figure.add_annotation(
                x=0.01, y=trace.y[0], xref="paper", text=f"error {trace.meta['error']:g}", showarrow=False,
                name=f"contour {trace.meta['error']:g}", xanchor="left", yanchor="bottom",
                font={"size": 11, "color": "#888888"},
            )  # fmt: skip
    return figure


def error(group: Group) -> go.Figure:
    """What is left of the error of a gradient when C may be spent: bias² + variance · cost / C. Biased ones dashed."""
    traces = []
    grid = numbers(contest.GRID)
    for one in group.contestants:
        value, low, high = one.error(contest.GRID)
        known = high < KNOWN * low
        hover = f"{escape(one.estimator)}<br>error %{{y:.3g}} (%{{customdata[0]:.3g}} to %{{customdata[1]:.3g}})"
        traces.append(
            scatter(
                x=grid, y=numbers(value), mode="lines", name=escape(one.estimator),
                customdata=[numbers(pair, 3) for pair in zip(low, high, strict=True)],
                line={"dash": "solid" if one.unbiased else "dash", "width": 2},
                hovertemplate=hover + f"<br>C = %{{x:.3g}} {group.unit}<extra></extra>",
                meta=role(one.estimator, "line"),
            )
        )  # fmt: skip
        xs, ys = band(contest.GRID, low, high, known)
        if xs:
            traces.append(
                scatter(
                    x=xs, y=ys, mode="lines", fill="toself", line={"width": 0}, hoverinfo="skip",
                    meta=role(one.estimator, "band"),
                )
            )  # fmt: skip
        if not known.all():
            traces.append(
                scatter(
                    x=numbers(contest.GRID[~known]), y=numbers(high[~known], 3), mode="lines", hoverinfo="skip",
                    line={"dash": "dot", "width": 1.2}, meta=role(one.estimator, "bound"),
                )
            )  # fmt: skip
    note = (
        f"{group.part}, {group.point} q. Solid: unbiased; dashed: biased. Bands: 95 % intervals; dots: the upper end "
        f"of an interval too wide to fill. Above ½ of ‖∇‖² is grey; always answering zero has the error 1. "
        f"{drawing.counts(pd.Series([one.n for one in group.contestants]))} estimates."
    )
    figure = go.Figure(traces)
    layout(figure, f"compute C, {group.unit}", "error / ‖∇‖²", note)
    figure.update_xaxes(type="log", range=[0, 5], dtick=1, exponentformat="power")
    figure.update_yaxes(type="log", range=[-3, 1.5], dtick=1, exponentformat="power")
    figure.add_hrect(y0=0.5, y1=1e9, fillcolor="rgba(128,128,128,0.12)", line_width=0, layer="below")
    figure.add_hline(y=1, line={"color": "#888888", "width": 1})
    figure.add_vline(x=1, line={"color": "#888888", "width": 2, "dash": "dot"}, name="C")
    return figure


def _contours(bottom: float, within: float) -> list[dict[str, Any]]:
    """Lines of equal error at C = 1, down to a place on the bent axis; the page moves them by C."""
    found = []
    for at in CONTOURS:
        near = at * (1 - 10.0 ** np.linspace(-8, -2, 13))  # where the variance is next to nothing
        rest = within * np.sinh(np.linspace(_bent(near[-1], within), bottom, 40))
        y = np.concatenate([near, rest])
        found.append(
            scatter(
                x=numbers(at - y, 5), y=numbers(_bent(y, within), 5), mode="lines", hoverinfo="skip",
                line={"color": "#888888", "width": 1, "dash": "dot"}, meta={"role": "contour", "error": at},
            )
        )  # fmt: skip
    return found


def _bent(value: Any, within: float) -> Any:
    return np.arcsinh(np.asarray(value, np.float64) / within)


def _bias(one: Contestant) -> dict[str, Any]:
    value, half = one.bias[0] / one.norm, 1.96 * one.bias[1] / one.norm
    return {"estimator": one.estimator, "value": value, "low": value - half, "high": value + half}


def _chosen(group: Group, lines: pd.DataFrame, where: pd.Series) -> Iterator[tuple[Contestant, Any]]:
    for one, line, here in zip(group.contestants, lines.itertuples(), where, strict=True):
        if here:
            yield one, line


def _said(one: Contestant, unit: str, origin: str) -> str:
    bias = _bias(one)
    lines = [
        f"<b>{escape(one.estimator)}</b>{' (claims to be unbiased)' if one.unbiased else ''}",
        f"bias² / ‖∇‖²: {bias['value']:.3g} ± {bias['value'] - bias['low']:.2g}",
        f"variance / ‖∇‖²: {one.variance[0] / one.norm:.3g} ± {1.96 * one.variance[1] / one.norm:.2g}",
        f"cost: {one.cost[0]:.3g} {unit}; {one.n:,} estimates",
        escape(origin),
    ]
    return "<br>".join(line for line in lines if line)
