"""ReinMax-CV: ReinMax, with the difference of two straight-through estimates at shifted logits as control variate.

    g_l = 2 J(π_l) ∇_l f(z) − ½ J(p_l) ∇_l f(z) + η (c_l(S) − c_l),    J(x) v = x ⊙ (v − xᵀv)
    c_l = J(softmax(z̃_l / t)) ∇_l f(z) / t,    z̃_l = log π_l + G_l,    π_l = ½ (p_l + z_l)

with the logits φ_l, p_l = softmax(φ_l), and the Gumbel noise G that gave the sample z_l = one_hot(argmax(φ_l + G_l)).
c(S) is the mean of c over S draws of z̃ ~ p(log π + G | argmax = z), as in `gumbel_rao`. Weights train on the hard
sample.

The mean of c(S) − c is not zero, so it adds bias. The reason: G is noise for which φ + G is largest at z, and c(S) has
noise for which log π + G is largest at z. Given z, ReinMax itself is not random, so the noise of c adds variance. On
small problems both bias and variance grew with η.

Cost: 1 evaluation, at a hard sample. Biased. Wang, Bui 2026, arXiv:2603.08257. In their code too, c uses the
noise of the sample. Two things differ there: z̃ is log π + softmax((φ + G) / t), and the softmax of c does not divide
by t.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from estimators.algebra import jacobian, probabilities
from estimators.base import Estimate
from estimators.gumbel_rao import GumbelRao, Noise, given_sample
from estimators.noise import race
from estimators.objective import Objective, Sites
from estimators.options import Count, Range, Temperatures
from estimators.sitewise import sitewise
from estimators.slopes import slopes_at


class ReinMaxCV(GumbelRao):
    """ReinMax-CV.

    Args:
        sizes: K_l of each site.
        temperature: t of the control variate, or a schedule, see `estimators.base.Temperature`.
        samples: S, draws of the noise; f is evaluated once.
        eta: η, how much of the control variate is added. With 0 it is `reinmax`.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        temperature: Temperatures = 0.5,
        samples: Count = 10,
        eta: Annotated[float, Range(ge=0)] = 0.5,
    ) -> None:
        super().__init__(sizes, temperature=temperature, samples=samples)
        self.eta = eta

    def _estimate(self, objective: Objective, logits: Sites, noise: Noise) -> Estimate:
        t = self.temperature(logits)
        p = probabilities(logits)
        index = race(p, noise.u)
        loss, slopes = slopes_at(self, objective, index.corners)

        def controlled(q: Tensor, i: Tensor, z: Tensor, u: Tensor, v: Tensor, slope: Tensor) -> Tensor:
            slope = torch.where(q > 0, slope, 0)  # a forbidden category may have no slope
            shifted = (q + z) / 2
            y = torch.log(u).neg_().div_(shifted)  # e^{−z̃}, inf where q is 0; the smallest is that of z
            soft = y.div_(y.gather(-1, i.unsqueeze(-1))).pow_(-1 / t)
            soft.div_(soft.sum(-1, keepdim=True))
            control = given_sample(shifted, i, v, slope, t).sub_(jacobian(soft, slope) / t)
            reinmax = jacobian(shifted, slope).mul_(2).sub_(jacobian(q, slope), alpha=0.5)
            return reinmax.add_(control, alpha=self.eta)

        return Estimate(loss, sitewise(controlled, p, index, index.corners, noise.u, noise.v, slopes))
