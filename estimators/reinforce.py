"""The score-function estimator, with a moving-average baseline or without one.

    g_l = (f(z) − b)(z_l − p_l),    b ← decay · b + (1 − decay) · f(z)

b is used first and updated afterwards: a baseline that contained its own sample would scale the gradient.
Cost: 1 evaluation. Unbiased. Williams 1992, "Simple statistical gradient-following algorithms".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from estimators.algebra import probabilities, scores, weighted
from estimators.base import Estimate, Estimator, train_weights
from estimators.noise import race
from estimators.objective import Objective, Sites
from estimators.options import Decay

Baseline = Literal["moving_average", "none"]


def averaging(baseline: Baseline, decay: float) -> float | None:
    """The decay of a moving average, or None without one."""
    return decay if baseline == "moving_average" else None


class Reinforce(Estimator):
    """REINFORCE.

    Args:
        sizes: K_l of each site.
        baseline: "moving_average" (starts at 0) or "none".
        decay: decay of the moving average, per step.
    """

    unbiased = True
    baseline: Tensor

    def __init__(self, sizes: Sequence[int], *, baseline: Baseline = "moving_average", decay: Decay = 0.9) -> None:
        super().__init__(sizes)
        self.decay = averaging(baseline, decay)
        self.register_buffer("baseline", torch.zeros(()))

    @property
    def learns(self) -> bool:
        return self.decay is not None

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        p = probabilities(logits)
        index = race(p, noise)
        loss = objective.hard(index)
        train_weights(loss)
        loss = loss.detach()
        grads = weighted(loss - self.baseline, scores(index, p))
        if self.training and self.decay is not None:
            self.baseline.lerp_(loss.mean().to(self.baseline.dtype), 1 - self.decay)
        return Estimate(loss, grads)
