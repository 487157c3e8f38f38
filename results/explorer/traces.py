"""What the figures of the page share: whose a trace is, axes and notes, bands, and numbers as the page holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from results import palette
from results.explorer.numbers import short

Looks = Mapping[str, palette.Look]


def scatter(**given: Any) -> dict[str, Any]:
    """A trace, which the figure checks."""
    return {"type": "scatter", **given}


def role(label: str, name: str) -> dict[str, str]:
    """What the page needs to know of a trace: whose it is and what it shows."""
    return {"estimator": label, "role": name}


def layout(figure: go.Figure, x: str, y: str, note: str) -> go.Figure:
    """Axis titles, the note below the figure, and everything else as all figures have it."""
    figure.update_layout(
        template=None, showlegend=False, hovermode="closest", margin={"l": 64, "r": 12, "t": 12, "b": 52},
        meta={"note": note},
    )  # fmt: skip
    figure.update_xaxes(title={"text": x}, automargin=True)
    figure.update_yaxes(title={"text": y}, automargin=True)
    return figure


def numbers(values: Sequence[float] | np.ndarray, digits: int = 4) -> list[float | None]:
    """As the page holds them."""
    return [short(float(value), digits) for value in values]


def band(x: np.ndarray, low: np.ndarray, high: np.ndarray, where: np.ndarray) -> tuple[list[Any], list[Any]]:
    """The outline of what lies between two curves, a polygon for each run of points, with gaps between them."""
    xs: list[Any] = []
    ys: list[Any] = []
    for run in np.split(np.arange(len(x)), np.flatnonzero(np.diff(where.astype(int))) + 1):
        if len(run) > 1 and where[run[0]]:
            xs += ([None] if xs else []) + numbers(np.concatenate([x[run], x[run][::-1]]))
            ys += ([None] if ys else []) + numbers(np.concatenate([low[run], high[run][::-1]]), 3)
    return xs, ys
