"""ReinMax-Rao: ReinMax, with the first of its Jacobians averaged over the noise of a soft sample.

    g_l = 2/S Σ_s J(softmax(z̃_{l,s} / t)) ∇_l f(z) / t − ½ J(p_l) ∇_l f(z)
    z̃_{l,s} ~ p(log π_l + G_l | argmax = z_l),    π_l = ½ (p_l + z_l)

ReinMax has J(π_l) in place of the average. The average is that of `gumbel_rao`, at the logits log π_l. Weights train on
the hard sample. Cost: 1 evaluation, at a hard sample. Biased. Wang, Bui 2026, arXiv:2603.08257.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from estimators.algebra import jacobian, probabilities
from estimators.base import Estimate
from estimators.gumbel_rao import GumbelRao, Noise, given_sample
from estimators.noise import race
from estimators.objective import Objective, Sites
from estimators.options import Count, Temperatures
from estimators.sitewise import sitewise
from estimators.slopes import slopes_at


class ReinMaxRao(GumbelRao):
    """ReinMax-Rao.

    Args:
        sizes: K_l of each site.
        temperature: t, or a schedule, see `estimators.base.Temperature`.
        samples: S, draws of the noise; f is evaluated once.
    """

    def __init__(self, sizes: Sequence[int], *, temperature: Temperatures = 0.5, samples: Count = 10) -> None:
        super().__init__(sizes, temperature=temperature, samples=samples)

    def _estimate(self, objective: Objective, logits: Sites, noise: Noise) -> Estimate:
        t = self.temperature(logits)
        p = probabilities(logits)
        index = race(p, noise.u)
        loss, slopes = slopes_at(self, objective, index.corners)

        def second_order(q: Tensor, i: Tensor, z: Tensor, v: Tensor, slope: Tensor) -> Tensor:
            slope = torch.where(q > 0, slope, 0)  # a forbidden category may have no slope
            return given_sample((q + z) / 2, i, v, slope, t).mul_(2).sub_(jacobian(q, slope), alpha=0.5)

        return Estimate(loss, sitewise(second_order, p, index, index.corners, noise.v, slopes))
