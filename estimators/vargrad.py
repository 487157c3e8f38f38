"""VarGrad: the gradient of half the sample variance of f + log q, with the samples held fixed.

    g_l = ∂/∂φ_l ½ Var_S[f(z_s) + log q(z_s)] = 1/(S−1) Σ_s (F_s − F̄) z_{s,l},    F_s = f(z_s) + log q(z_s)

(the p_l term vanishes since Σ_s (F_s − F̄) = 0). This is leave-one-out REINFORCE on F, and it estimates the gradient
of E_q[f + log q] = E_q f − H(q), without bias: the ELBO's gradient where f = −log p(x, z). It does *not* estimate the
gradient of E_q f, and so does not claim to. Weights train on f.
Cost: S evaluations, in one call. Richter, Boustati, Nüsken, Ruiz, Akyildiz 2020, arXiv:2010.10436.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from estimators.base import Estimate, Estimator, Objective, Sites, train_weights
from estimators.noise import gumbel_argmax, uniform
from estimators.pathwise import one_hots


class VarGrad(Estimator):
    """VarGrad, the log-variance loss.

    Args:
        sizes: K_l of each site.
        samples: S ≥ 2, the leading dimension of the one call to the objective; weights train on the mean over it.
    """

    unbiased = False

    def __init__(self, sizes: Sequence[int], *, samples: int = 2) -> None:
        super().__init__(sizes)
        if not isinstance(samples, int) or samples < 2:
            raise ValueError(f"samples must be an integer of at least 2, for a variance, got {samples!r}")
        self.evaluations = samples

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Sites:
        return uniform(logits, generator, (self.evaluations,))

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        index = gumbel_argmax(logits, noise)
        loss = objective.hard(index)
        train_weights(loss, 1 / self.evaluations)
        loss = loss.detach()
        total = loss
        for site, i in zip(logits, index, strict=True):
            log_q = torch.log_softmax(site, -1).expand(*i.shape, -1)
            total = total + log_q.gather(-1, i.unsqueeze(-1)).squeeze(-1)
        weight = ((total - total.mean(0)) / (self.evaluations - 1)).unsqueeze(-1)
        return Estimate(loss.mean(0), tuple((weight * z).sum(0) for z in one_hots(index, logits)))
