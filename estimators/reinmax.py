"""ReinMax: a second-order straight-through estimator.

    g_l = 2 J(π_l) ∇_l f(z) − ½ J(p_l) ∇_l f(z),    π_l = ½ (softmax(φ_l / t) + z_l),    J(q) v = q ⊙ (v − qᵀv)

Straight-through corresponds to Euler's method, and ReinMax to Heun's method. At t = 1 its mean is exact if f is
quadratic in each site. Weights train on the hard sample.
Cost: 1 evaluation, at a hard sample. Biased.
Liu, Dong, Liu, Yu, Gao 2023, arXiv:2304.08612.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from estimators.algebra import jacobian, probabilities, probability
from estimators.base import Estimate, Estimator, Temperature
from estimators.noise import race
from estimators.objective import Objective, Sites
from estimators.options import Temperatures
from estimators.sitewise import sitewise
from estimators.slopes import slopes_at


class ReinMax(Estimator):
    """ReinMax.

    Args:
        sizes: K_l of each site.
        temperature: t, or a schedule, see `estimators.base.Temperature`. Only t = 1 is of second order.
    """

    unbiased = False
    pathwise = True

    def __init__(self, sizes: Sequence[int], *, temperature: Temperatures = 1.0) -> None:
        super().__init__(sizes)
        self.temperature = Temperature(temperature)
        self.plain = temperature == 1.0  # at all times

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        t = self.temperature(logits)
        p = probabilities(logits)
        sample = race(p, noise).corners
        loss, slopes = slopes_at(self, objective, sample)

        def second_order(site: Tensor, q: Tensor, z: Tensor, slope: Tensor) -> Tensor:
            twice = (q if self.plain else probability(site / t)) + z  # 2 π
            slope = torch.where(twice > 0, slope, 0)  # a forbidden category may have no slope
            first = twice * (slope - (twice * slope).sum(-1, keepdim=True) / 2)  # 2 J(π) ∇f
            return first.sub_(jacobian(q, slope), alpha=0.5)

        return Estimate(loss, sitewise(second_order, logits, p, sample, slopes))
