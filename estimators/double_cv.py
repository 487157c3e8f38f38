"""Double control variates: leave-one-out REINFORCE whose samples and baselines both carry a first-order term.

    g_l = 1/S Σ_s [F_s − mean_{r≠s} F_r] (z_{s,l} − p_l) − α J(p_l) mean_s ∇_l f(z_s)
    F_s = f(z_s) + α b_s,    b_s = mean_{r≠s} Σ_m ∇_m f(z_r)ᵀ (z_{s,m} − p_m)

There are S samples. b_s uses the gradients at the *other* samples; the gradient at z_s itself would bias the estimate.
b_s is linear in z_s with E[b_s (z_s − p)] = J(p) E∇f, which the last term subtracts. In b_r (z_s − p) the sample z_r is
independent of everything else, so its mean is 0. The gradients come from the pass that trains the weights. α is trained
by gradient descent on E‖g‖², starting at −½ (the authors' code starts at 0).
Cost: S evaluations, in one call, at hard samples. Unbiased. Titsias, Shi 2022, arXiv:2111.05300.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from estimators.algebra import dot, jacobian, norm_sq, probabilities
from estimators.base import Estimate, SeveralSamples
from estimators.noise import race
from estimators.objective import Objective, Sites
from estimators.options import Several
from estimators.sitewise import sitewise
from estimators.slopes import slopes_at


class DoubleCV(SeveralSamples):
    """Double control variates.

    Args:
        sizes: K_l of each site.
        samples: S ≥ 2, the leading dimension of the single call to the objective; weights train on their mean.
        alpha: the initial α.
    """

    unbiased = True

    def __init__(self, sizes: Sequence[int], *, samples: Several = 2, alpha: float = -0.5) -> None:
        super().__init__(sizes, samples=samples)
        self.alpha = nn.Parameter(torch.tensor(float(alpha)))

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        n = self.evaluations
        p = probabilities(logits)
        sample = race(p, noise).corners
        loss, slopes = slopes_at(self, objective, sample, 1 / n)
        slopes = sitewise(lambda q, v: torch.where(q > 0, v, 0), p, slopes)  # a forbidden category may have no slope
        score = sitewise(torch.sub, sample, p)
        others = sitewise(lambda v: (v.sum(0) - v) / (n - 1), slopes)  # the mean slope at the other samples
        value = loss + self.alpha * dot(others, score)
        advantage = ((value - value.mean(0)) / (n - 1))[..., None, None]  # (F_s − mean of the others) / n
        grads = sitewise(lambda s, q, v: (advantage * s).sum(0) - self.alpha * jacobian(q, v.mean(0)), score, p, slopes)
        if self.training:
            self._fit(norm_sq(grads))
        return Estimate(loss.mean(0), grads)
