"""A whole training run, or the rest of one, with what is watched along it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch

from vmo.checkpoint import Keeper
from vmo.learner import Diverged, Learner

Curve = list[tuple[int, float]]
"""Steps, and what was watched after so many."""


class Run(Protocol):
    """A run whose learner knows how long it is."""

    learner: Learner

    def step(self) -> None:
        """One step on the next minibatch."""

    def snapshot(self) -> dict[str, Any]:
        """A copy of everything that training changes."""

    def restore(self, state: dict[str, Any]) -> None:
        """Return to a snapshot."""


def train(
    run: Run,
    watch: Callable[[], float],
    keeper: Keeper,
    *,
    moments: int,
    device: torch.device,
    progress: Callable[[str, int, int], None],
) -> Curve:
    """Train to the end, from the checkpoint that `keeper` has if any: interrupted or not, to the bit the same end.

    Args:
        run: as it begins; afterwards as it ends.
        watch: what to put into the curve; it must not change the run.
        keeper: of the checkpoints, which hold the curve as well.
        moments: about how many to watch, at equal distances; the beginning and the end are among them.
        device: of the run.
        progress: told of each moment.

    Raises:
        Diverged: what is watched is not finite, or see `Learner.backward`.
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
                raise Diverged(f"what is trained is no longer finite at step {at}")
        if at >= learner.steps:
            break
        run.step()
        keeper.offer(state)
    keeper.finish(state())
    return curve
