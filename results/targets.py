"""Targets for the cost of a training step, relative to a plain step of the same network, and whether they are met.

A target is met if the whole 95 % interval is below it, and missed if the whole interval is above it.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pandas as pd

from results import summary

Estimator = tuple[str, dict[str, Any]]
"""A name and values of options; without options, all have their defaults."""


class Target(NamedTuple):
    """The largest allowed cost of estimators on a task, in plain steps.

    Attributes:
        task: the task.
        estimators: the estimators.
        time: time of a step at the uniform q; None: see `held`.
        memory: memory at the peak of a step.
        held: time of a step with q held at fractions of the width: pairs of a fraction and the target.
    """

    task: str
    estimators: tuple[Estimator, ...]
    time: float | None
    memory: float
    held: tuple[tuple[float, float], ...] = ()


def _default(*names: str) -> tuple[Estimator, ...]:
    return tuple((name, {}) for name in names)


_SOFT = _default("concrete", "straight_through", "gumbel_straight_through")
_SINGLE = _default("reinforce", "relax", "nvil")
_TUNED = {"coupled": True, "tuning": "regression", "part": 1}
_LEAN: tuple[Estimator, ...] = (
    ("rebar", _TUNED),
    ("relax", {**_TUNED, "relaxed_objective": True, "sees": "noise"}),
)
TARGETS = (
    Target("width", _SOFT, 1.03, 1.03),
    Target("joint", _SOFT, 1.03, 1.03),
    Target("depth", (*_default("exact"), *_SOFT, *_default("reinforce", "rloo")), 1.10, 1.10),
    Target("width", _SINGLE, None, 1.03, ((1.0, 1.03), (0.75, 0.85), (0.5, 0.65))),
    Target("width", (("rloo", {"parts": "own"}), ("rloo", {"parts": "first"})), None, 1.03, ((1.0, 1.05),)),
    Target("width", _LEAN, None, 1.10, ((1.0, 1.70),)),
)
_PRESET = "cpu"  # the targets are for the networks and minibatch of this preset
_FREE = {"train.bf16", "overhead.pairs"}  # settings that may differ from it


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """One line for each measured target: the target, the estimate with its interval, and the verdict.

    Only rows of the preset that the targets are meant for are used.
    """
    meant = frame["changed"].map(lambda text: set(json.loads(text)) <= _FREE).astype(bool)
    frame = frame[meant & (frame["preset_name"] == _PRESET) & frame["suite"].isin(("overhead", "memory"))]
    lines = []
    for target in TARGETS:
        for estimator in target.estimators:
            here = frame[(frame["task"] == target.task) & _is(frame, *estimator)]
            asked: list[tuple[str, str, float | None, float]] = []
            if target.time is not None:
                asked += [("time", "time_ratio", None, target.time)]
            asked += [(f"time at {part:g} of the width", "time_ratio_held", part, most) for part, most in target.held]
            asked += [("peak memory", "peak_ratio", None, target.memory)]
            for what, metric, x, most in asked:
                rows = summary.measured(here, metric)
                for line in summary.pool(rows if x is None else rows[rows["x"] == x]).itertuples():
                    low, high = (line.value, line.value) if pd.isna(line.low) else (line.low, line.high)
                    verdict = "met" if high <= most else "missed" if low > most else "inconclusive"
                    measured = summary.with_error(line)
                    lines.append((target.task, line.estimator, what, most, measured, line.preset, verdict))
    columns = ["task", "estimator", "what", "at most", "measured, in plain steps (95 %)", "preset", "verdict"]
    return pd.DataFrame(lines, columns=columns)


def _is(frame: pd.DataFrame, name: str, options: dict[str, Any]) -> pd.Series:
    """A mask of the rows of an estimator with default options, or with these values of options."""
    if not options:
        return frame["estimator"] == name
    found = frame["name"] == name
    for option, value in options.items():
        column = f"option.{option}"
        found &= frame[column].map(lambda there, value=value: there == value) if column in frame else False
    return found.astype(bool)
