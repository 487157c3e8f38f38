"""Implicit maximum likelihood: the difference of two samples with the same noise, one at logits moved down the slope.

    z_l = one_hot(argmax(φ_l + G_l)),    z'_l = one_hot(argmax(φ_l + G_l − λ ∇_l f(z))),    g_l = (z_l − z'_l) / λ
    λ = strength / max_l (max_k ∇_{l,k} f(z) − min_k ∇_{l,k} f(z)),    in each row

with the same Gumbel noise G in both. At a fixed slope the mean of g_l is (softmax(φ_l) − softmax(φ_l − λ ∇_l f)) / λ.
As λ → 0 it tends to J(p) ∇f, the straight-through estimate. Then the variance grows like 1/λ, and most estimates of a
site are exactly 0. So λ must fit the scale of f. Here it is relative to the slopes: the two categories between which f
is steepest move by `strength` logits against each other. AIMLE (arXiv:2209.04862) adapts λ by a running average.
The authors' code leaves the factor 1 / λ out unless asked for; here it gives the estimate the scale of the gradient.
Cost: 1 evaluation, at a hard sample. Biased.
Niepert, Minervini, Franceschi 2021, arXiv:2106.01798. For categoricals, samples from Gumbel noise are exact.
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
        strength: how far the second sample is moved, in logits.
    """

    unbiased = False

    def __init__(self, sizes: Sequence[int], *, strength: Positive = 4.0) -> None:
        super().__init__(sizes)
        self.strength = strength

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        moved = sitewise(perturbed, logits, noise)
        sample = Categories((stack.max(-1).indices for stack in moved.stacks), moved).corners
        loss, slopes = slopes_at(self, objective, sample)

        pairs = zip(moved.stacks, slopes.stacks, strict=True)
        steepest = torch.cat([_range(noisy > -torch.inf, v) for noisy, v in pairs], -1).amax(-1)[..., None, None]
        flat = steepest == 0  # nothing to move, and g = 0
        per_slope = self.strength / torch.where(flat, 1, steepest)  # λ, (*rows, 1, 1)

        def difference(noisy: Tensor, z: Tensor, slope: Tensor) -> Tensor:
            # f may have no slope at a forbidden category, which stays at −inf
            lower = noisy - per_slope * torch.where(noisy > -torch.inf, slope, 0)
            return (z - one_hot(lower.max(-1).indices, z.shape[-1], z.dtype)) / per_slope

        return Estimate(loss, sitewise(difference, moved, sample, slopes))


def _range(allowed: Tensor, slope: Tensor) -> Tensor:
    """max_k − min_k of the slopes `(*rows, n, K)` at the allowed categories: `(*rows, n)`; NaN if one of them is."""
    high, low = (torch.where(allowed, slope, end) for end in (-torch.inf, torch.inf))
    return high.amax(-1) - low.amin(-1)
