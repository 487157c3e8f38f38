"""Figures of training runs: accuracy against multiply-accumulates, and what is followed along the way."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from results import drawing, figures_training, summary, words
from results.explorer.numbers import SYMBOLS, provenance
from results.explorer.traces import Looks, band, layout, numbers, role, scatter

AXES = {"curve_objective": "step", "curve_elbo": "step"}


def accuracy_macs(rows: pd.DataFrame, looks: Looks) -> go.Figure | None:
    """Test accuracy against the multiply-accumulates that were kept: seeds small, their mean large."""
    both = figures_training.runs_against(rows, "macs_ratio", 100.0)
    if both["estimator"].nunique() < 2:
        return None
    traces = []
    for label in summary.ordered(both):
        runs = both[both["estimator"] == label]
        seeds = [f"{escape(label)}<br>seed {seed}<br>{escape(provenance(one))}" for seed, one in runs.groupby("seed")]
        runs = runs.sort_values("seed")
        symbol = SYMBOLS[looks[label].marker]
        traces.append(
            scatter(
                x=numbers(runs["value_x"]), y=numbers(runs["value"]), mode="markers", text=seeds,
                marker={"size": 5, "opacity": 0.6, "symbol": symbol},
                hovertemplate="%{text}<br>accuracy %{y:.4g} %, MACs %{x:.3g} %<extra></extra>",
                meta=role(label, "seed"),
            )
        )  # fmt: skip
        across, up = (figures_training.interval(runs[name]) for name in ("value_x", "value"))
        said = f"accuracy {up.estimate:.4g} %"
        said += f" ({up.low:.4g} to {up.high:.4g})" if np.isfinite(up.low) else ""
        traces.append(
            scatter(
                x=numbers([across.estimate]), y=numbers([up.estimate]), mode="markers", name=escape(label),
                error_x={"type": "data", "array": numbers([across.high - across.estimate])},
                error_y={"type": "data", "array": numbers([up.high - up.estimate])},
                marker={"size": 12, "symbol": symbol},
                text=[
                    f"<b>{escape(label)}</b><br>{said}<br>MACs {across.estimate:.3g} %; {up.n} seeds"
                    f"<br>{escape(provenance(runs))}"
                ],
                hovertemplate="%{text}<extra></extra>", meta=role(label, "point"),
            )
        )  # fmt: skip
    n = drawing.counts(both.groupby("estimator")["value"].size())
    few = figures_training.FEW
    note = f"Small: one seed; large: the mean, from {few} seeds on with 95 % t intervals; {n} seeds."
    figure = go.Figure(traces)
    figure.update_xaxes(range=figures_training.around(both["value_x"]))
    figure.update_yaxes(range=figures_training.around(both["value"]))
    return layout(figure, "MACs kept, % of the full network", "test accuracy, %", note)


def curves(rows: pd.DataFrame) -> Iterator[tuple[str, go.Figure]]:
    """Every metric that is followed along training, by its name: the mean over seeds with its t interval."""
    followed = rows[rows["metric"].str.startswith("curve_")]
    followed = summary.measured(followed, list(followed["metric"].unique()))
    followed = followed[followed["x"].notna()]
    if followed.empty:
        return
    pooled = summary.pool(figures_training.changing(followed))
    for metric in words.ordered(pooled["metric"].unique(), "metrics"):
        here = pooled[pooled["metric"] == metric]
        runs = followed[followed["metric"] == metric]
        traces = [
            trace
            for (label, part), curve in here.groupby(["estimator", "part"], dropna=False)
            for trace in _curve(str(label), "" if pd.isna(part) else str(part), curve.sort_values("x"), runs)
        ]
        few = here["seeds"].max() < figures_training.FEW
        note = f"The mean over seeds, {drawing.counts(here['seeds'])}"
        note += "; too few for intervals." if few else "; bands: 95 % t intervals."
        yield metric, layout(go.Figure(traces), AXES.get(metric, "epoch"), words.metric(metric), note)


def _curve(label: str, part: str, curve: pd.DataFrame, runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    said = escape(label + (f", {part}" if part else ""))
    origin = escape(provenance(runs[runs["estimator"] == label]))
    yield scatter(
        x=numbers(curve["x"]), y=numbers(curve["value"]), mode="lines", name=said,
        line={"width": 2, "dash": "dot" if part == "train" else "solid"},
        hovertemplate=f"{said}<br>{origin}<br>%{{y:.4g}} at %{{x:g}}<extra></extra>", meta=role(label, "line"),
    )  # fmt: skip
    if curve["seeds"].max() >= figures_training.FEW:
        x, low, high = (curve[name].to_numpy(np.float64) for name in ("x", "low", "high"))
        xs, ys = band(x, low, high, np.isfinite(low))
        yield scatter(
            x=xs, y=ys, mode="lines", fill="toself", line={"width": 0}, hoverinfo="skip", meta=role(label, "band")
        )
