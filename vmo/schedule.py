"""Learning rates as functions of progress. (Temperatures belong to the estimators, see `Estimator.anneal`.)"""

from __future__ import annotations

from collections.abc import Callable

Schedule = Callable[[float], float]
"""The learning rate after `progress` in [0, 1] of a run."""
MILESTONES = (0.3, 0.6, 0.8)
"""Epochs 60, 120 and 160 of 200 in the Wide ResNet recipe, as fractions, so that they scale with the run."""


RISE = 0.2
"""Time of the triangular schedule's peak, as a fraction of the run."""
FLOOR = 0.01
"""First and last learning rate of the triangular schedule, as a fraction of the peak."""


def triangular(lr: float, progress: float) -> float:
    """The learning rate after `progress` in [0, 1] of a run: linear from `FLOOR` lr to lr at `RISE`, and back."""
    if not 0 <= progress <= 1:
        raise ValueError(f"progress must lie in [0, 1], got {progress}")
    height = progress / RISE if progress < RISE else (1 - progress) / (1 - RISE)
    return lr * (FLOOR + (1 - FLOOR) * height)


def step_decay(lr: float, progress: float, factor: float = 0.2) -> float:
    """The learning rate after `progress` in [0, 1] of a run: multiplied by `factor` at each milestone."""
    if not 0 <= progress <= 1:
        raise ValueError(f"progress must lie in [0, 1], got {progress}")
    return lr * factor ** sum(progress >= milestone for milestone in MILESTONES)


SCHEDULES = {"step": step_decay, "triangular": triangular}
