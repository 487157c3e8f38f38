"""Implicit maximum likelihood: the difference of two samples on the same noise, one of them moved down the slope.

    z_l = one_hot(argmax(φ_l + G_l)),    z'_l = one_hot(argmax(φ_l + G_l − λ ∇_l f(z))),    g_l = (z_l − z'_l) / λ

At a fixed slope the mean of g_l is (softmax(φ_l) − softmax(φ_l − λ ∇_l f)) / λ, which tends to J(p) ∇f, the
straight-through estimate, as λ → 0. The variance then grows like 1/λ, and most estimates of a site are exactly 0.
The authors' code leaves the factor 1 / λ out unless it is asked for; here it gives the estimate the gradient's scale.
Cost: 1 evaluation, on the vertices. Biased.
Niepert, Minervini, Franceschi 2021, arXiv:2106.01798, for categoricals, where Gumbel noise makes the sampling exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from estimators.base import Estimate, Estimator
from estimators.noise import Categories, one_hot, perturbed
from estimators.objective import Objective, Sites
from estimators.options import Positive
from estimators.sitewise import sitewise
from estimators.slopes import slopes_at


class Imle(Estimator):
    """Implicit maximum likelihood estimation (I-MLE).

    Args:
        sizes: K_l of each site.
        strength: λ, how far the second sample is moved, in logits per unit of slope. It has the scale of 1 / ∇f.
    """

    unbiased = False

    def __init__(self, sizes: Sequence[int], *, strength: Positive = 1.0) -> None:
        super().__init__(sizes)
        self.strength = strength

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        moved = sitewise(perturbed, logits, noise)
        sample = Categories((stack.max(-1).indices for stack in moved.stacks), moved).corners
        loss, slopes = slopes_at(self, objective, sample)

        def difference(noisy: Tensor, z: Tensor, slope: Tensor) -> Tensor:
            # f may have no slope at a forbidden category, which stays at −inf
            lower = noisy - self.strength * torch.where(noisy > -torch.inf, slope, 0)
            return (z - one_hot(lower.max(-1).indices, z.shape[-1], z.dtype)) / self.strength

        return Estimate(loss, sitewise(difference, moved, sample, slopes))
