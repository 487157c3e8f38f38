"""What a training step may cost, as a part of a plain one of the same network, and what it does.

Time is that of WRN-16-4 at a minibatch of 128, interleaved with plain steps; memory is counted at WRN-28-10, at the
same minibatch. A target is met where the whole 95 % interval is below it, missed where the whole interval is above.
"""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from results import summary


class Target(NamedTuple):
    """The most that estimators may need on a task, in plain steps.

    Attributes:
        task: of the rows.
        estimators: labels.
        time: of a step with q as it begins.
        memory: at the peak of a step.
        held: instead of `time`, of a step with q held at a part of the width: the part, and the most.
    """

    task: str
    estimators: tuple[str, ...]
    time: float | None
    memory: float
    held: tuple[tuple[float, float], ...] = ()


_SOFT = ("concrete", "straight_through", "gumbel_straight_through")
_SINGLE = ("reinforce", "relax", "nvil")
_LEAN = (
    "rebar[coupled=True, tuning='regression']",
    "relax[coupled=True, relaxed_objective=True, sees='noise', tuning='regression']",
)
TARGETS = (
    Target("width", _SOFT, 1.03, 1.03),
    Target("joint", _SOFT, 1.03, 1.03),
    Target("depth", ("exact", *_SOFT, "reinforce", "rloo"), 1.10, 1.10),
    Target("width", _SINGLE, None, 1.03, ((1.0, 1.03), (0.75, 0.85), (0.5, 0.65))),
    Target("width", ("rloo[parts='own']", "rloo[parts='first']"), None, 1.03, ((1.0, 1.05),)),
    Target("width", _LEAN, None, 1.10, ((1.0, 1.70),)),
)
_PRESET = "cpu"  # whose networks and minibatch these are
_FREE = {"bf16", "overhead_pairs"}  # what else may be changed of it


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """One line for each target that was measured: what was asked, the estimate with its interval, and the verdict.

    Only rows of the preset whose networks the targets are meant for count.
    """
    frame = frame[frame["preset"].map(_is_meant)]
    lines = []
    for target in TARGETS:
        for estimator in target.estimators:
            here = frame[(frame["task"] == target.task) & (frame["estimator"] == estimator)]
            here = here[here["suite"].isin(("overhead", "memory"))]
            asked: list[tuple[str, str, float | None, float]] = []
            if target.time is not None:
                asked += [("time", "time_ratio", None, target.time)]
            asked += [(f"time at {part:g} of the width", "time_ratio_held", part, most) for part, most in target.held]
            asked += [("peak memory", "peak_ratio", None, target.memory)]
            for what, metric, x, most in asked:
                rows = summary.measured(here, metric)
                for line in summary.pool(rows if x is None else rows[rows["x"] == x]).itertuples():
                    low, high = (line.value, line.value) if pd.isna(line.low) else (line.low, line.high)
                    verdict = "met" if high <= most else "missed" if low > most else "not told apart"
                    lines.append((target.task, estimator, what, most, summary.with_error(line), line.preset, verdict))
    columns = ["task", "estimator", "what", "at most", "measured, in plain steps (95 %)", "preset", "verdict"]
    return pd.DataFrame(lines, columns=columns)


def _is_meant(preset: str) -> bool:
    name, _, changed = preset.partition("[")
    keys = {pair.partition("=")[0] for pair in changed.rstrip("]").split(", ") if pair}
    return name == _PRESET and keys <= _FREE
