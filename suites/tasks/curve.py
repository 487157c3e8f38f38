"""Runs a whole training, resuming from a checkpoint if there is one, and records a curve."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch

from vmo.checkpoint import Keeper
from vmo.learner import Diverged, Learner

Curve = list[tuple[int, float]]
"""Pairs of a step and the recorded value."""


class Run(Protocol):
    """A run whose learner knows its number of steps."""

    learner: Learner

    def step(self) -> None:
        """One step on the next minibatch."""

    def snapshot(self) -> dict[str, Any]:
        """A copy of everything that training changes."""

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a snapshot."""


def train(
    run: Run,
    watch: Callable[[], float],
    keeper: Keeper,
    *,
    moments: int,
    device: torch.device,
    progress: Callable[[str, int, int], None],
) -> Curve:
    """Train to the end, from the checkpoint of `keeper` if there is one. An interruption does not change the result.

    Args:
        run: the run at its start; it is trained in place.
        watch: returns the value to record; it must not change the run.
        keeper: keeps the checkpoints, which contain the curve.
        moments: approximate number of recorded values, equally spaced, including the start and the end.
        device: the device of the run.
        progress: called at each recorded value.

    Raises:
        Diverged: a recorded value is not finite; see also `Learner.backward`.
    """
    curve: Curve = []
    if (saved := keeper.load(device)) is not None:
        run.restore(saved["run"])
        curve = [(at, value) for at, value in saved["curve"]]

    def state() -> dict[str, Any]:
        return {"run": run.snapshot(), "curve": curve}

    learner = run.learner
    assert learner.steps is not None
    every = max(1, learner.steps // moments)
    while True:
        at = learner.step_count
        if at % every == 0 or at == learner.steps:
            if not curve or curve[-1][0] != at:
                curve.append((at, watch()))
            progress("training", at, learner.steps)
            if not math.isfinite(curve[-1][1]):
                raise Diverged(f"the recorded value is not finite at step {at}")
        if at >= learner.steps:
            break
        run.step()
        keeper.offer(state)
    keeper.finish(state())
    return curve
