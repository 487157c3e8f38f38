"""VarGrad: the gradient of half the sample variance of f + log q, with the samples held fixed.

    g_l = ∂/∂φ_l ½ Var_S[f(z_s) + log q(z_s)] = 1/(S−1) Σ_s (F_s − F̄) z_{s,l},    F_s = f(z_s) + log q(z_s)

(the p_l term vanishes since Σ_s (F_s − F̄) = 0). This is leave-one-out REINFORCE on F. It is unbiased for the gradient
of E_q[f + log q] = E_q f − H(q); for f = −log p(x, z) that is the negative ELBO. It is biased for the gradient of E_q
f, and so does not claim to be unbiased. Weights train on f.
Cost: S evaluations, in one call. Richter, Boustati, Nüsken, Ruiz, Akyildiz 2020, arXiv:2010.10436.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from estimators.algebra import dot, log_probability
from estimators.noise import Categories
from estimators.objective import Sites
from estimators.options import Several
from estimators.rloo import Rloo
from estimators.sitewise import sitewise


class VarGrad(Rloo):
    """VarGrad, the log-variance loss.

    Args:
        sizes: K_l of each site.
        samples: S ≥ 2, the leading dimension of the single call to the objective; weights train on their mean.
    """

    unbiased = False

    def __init__(self, sizes: Sequence[int], *, samples: Several = 2) -> None:
        super().__init__(sizes, samples=samples)

    def _value(self, loss: Tensor, index: Categories, logits: Sites) -> Tensor:
        # a forbidden category is never drawn, and −inf · 0 would be NaN
        log_q = sitewise(lambda site: log_probability(site).clamp(min=torch.finfo(site.dtype).min), logits)
        return loss + dot(index.corners, log_q)
