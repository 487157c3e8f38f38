"""MuProp: the score-function estimator with the first-order Taylor expansion of f at the mean as its control variate.

    g_l = [f(z) − h(z) − b] (z_l − p_l) + J(p_l) ∇_l f(p),    h(z) = f(p) + Σ_m ∇_m f(p)ᵀ (z_m − p_m)
    b ← decay · b + (1 − decay) · (f(z) − h(z))

with J(p) v = p ⊙ (v − pᵀv). The expansion h is linear in each site, so E[h(z)(z_l − p_l)] = J(p_l) ∇_l f(p) is known.
f(p) is not the mean of f. The baseline b, from earlier steps, corrects for the difference. All of the paper's
experiments use such a baseline.
Cost: 2 evaluations. One of them is at p, a soft sample, and gives weights no gradient. Unbiased.
Gu, Levine, Sutskever, Mnih 2016, arXiv:1511.05176.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from estimators.algebra import dot, jacobian, probabilities, scores
from estimators.base import Estimate, Estimator, train_weights
from estimators.noise import race
from estimators.objective import Objective, Sites
from estimators.options import Decay
from estimators.reinforce import Baseline, averaging
from estimators.sitewise import sitewise
from estimators.slopes import slopes_of


class MuProp(Estimator):
    """MuProp.

    Args:
        sizes: K_l of each site.
        baseline: "moving_average" (starts at 0) or "none".
        decay: decay of the moving average, per step.
    """

    version = 2
    unbiased = True
    relaxed = True
    evaluations = 2
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
        mean, found, _ = slopes_of(self, objective, sitewise(torch.detach, p), False)
        slopes = sitewise(lambda q, v: torch.where(q > 0, v, 0), p, found)  # a forbidden category may have no slope
        score = scores(index, p)
        rest = loss - mean - dot(slopes, score)
        advantage = (rest - self.baseline)[..., None, None]
        grads = sitewise(lambda s, q, v: advantage * s + jacobian(q, v), score, p, slopes)
        if self.training and self.decay is not None:
            self.baseline.lerp_(rest.mean().to(self.baseline.dtype), 1 - self.decay)
        return Estimate(loss, grads)
