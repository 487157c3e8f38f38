"""The figure of a performance profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go

from results.explorer.traces import layout, numbers, role, scatter


def figure(tasks: Sequence[str], ratios: Mapping[str, Mapping[str, float]], name: str) -> go.Figure:
    """Of every estimator the part of the tasks on which its measure is within τ times the best one.

    One that was not measured on every task is dashed. What was not measured counts as never within τ.
    """
    traces = []
    most = 1.5 * max((max(of.values()) for of in ratios.values()), default=1.0)
    for label, of in ratios.items():
        steps = np.sort(list(of.values()))
        x = np.concatenate([[1.0], steps, [most]])
        y = np.concatenate([[0.0], np.arange(1, len(steps) + 1), [len(steps)]]) / len(tasks)
        lacking = [task for task in tasks if task not in of]
        missing = f"<br>no number on {', '.join(map(escape, lacking))}" if lacking else ""
        traces.append(
            scatter(
                x=numbers(x), y=numbers(y), mode="lines", name=escape(label),
                line={"shape": "hv", "dash": "dash" if lacking else "solid", "width": 2},
                hovertemplate=f"{escape(label)}{missing}<br>%{{y:.0%}} of the tasks within %{{x:.3g}} times the best"
                "<extra></extra>",
                meta=role(label, "line"),
            )
        )  # fmt: skip
    note = f"{len(tasks)} tasks: {', '.join(tasks)}. Dashed: no number on some, which counts as not within τ."
    if name == "variance × cost":
        note += " Only unbiased estimators, without enumeration; variance of the logits' gradient."
    made = layout(go.Figure(traces), "τ, times the best of the task", f"part of the tasks, {name}", note)
    made.update_xaxes(type="log", range=[0, float(np.log10(most))])
    made.update_yaxes(range=[-0.03, 1.03], tickformat=".0%")
    return made
