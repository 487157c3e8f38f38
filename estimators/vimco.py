"""VIMCO: the gradient of a bound of several samples, with a baseline for each from the others.

    w_s = exp(−F_s),    F_s = f(z_s) + log q(z_s),    B = −log (1/S) Σ_s w_s
    g_l = Σ_s (B − B_s + w_s / Σ_r w_r) (z_{s,l} − p_l)

B_s is B with w_s replaced by the geometric mean of the others. The target is E[B] over S independent samples. For f =
−log p(x, z) it is the negative bound of the importance weighted autoencoder (arXiv:1509.00519), with S = 1 the negative
ELBO. The two parts of the gradient:

    Σ_s B ∇log q(z_s)               because the samples come from q
    Σ_s w_s / Σ_r w_r ∇log q(z_s)   because F_s contains log q

B_s does not depend on z_s, so that subtracting it leaves the mean as it is: g is unbiased for the gradient of E[B]. It
is biased for the gradient of E_q f, and so does not claim to be unbiased. Weights train on B, so each sample counts by
its share w_s / Σ_r w_r. The loss that is returned is the mean of f.
Cost: S evaluations, in one call. Mnih, Rezende 2016, arXiv:1602.06725.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from estimators.algebra import dot, log_probability, scores, weighted_sum
from estimators.base import Estimate, SeveralSamples, train_weights
from estimators.noise import gumbel_argmax
from estimators.objective import Objective, Sites
from estimators.sitewise import sitewise


class Vimco(SeveralSamples):
    """VIMCO.

    Args:
        sizes: K_l of each site.
        samples: S ≥ 2, the leading dimension of the single call to the objective; weights train on the bound.
    """

    unbiased = False

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        index = gumbel_argmax(logits, noise)
        loss = objective.hard(index)
        # a forbidden category is never drawn, and −inf · 0 would be NaN
        log_p = sitewise(lambda site: log_probability(site).clamp(min=torch.finfo(site.dtype).min), logits)
        log_w = -(loss.detach() + dot(index.corners, log_p)).double()
        share = torch.softmax(log_w, 0)
        train_weights(loss, share.to(loss.dtype))
        weight = (self._baseline(log_w) - _mean(log_w) + share).to(loss.dtype)
        return Estimate(loss.detach().mean(0), weighted_sum(weight, scores(index, sitewise(torch.exp, log_p))))

    def _baseline(self, log_w: Tensor) -> Tensor:
        """−B_s of every sample, `(S, *rows)`."""
        geometric = (log_w.sum(0) - log_w) / (self.evaluations - 1)
        own = torch.eye(self.evaluations, dtype=torch.bool, device=log_w.device)
        own = own.view(*own.shape, *(1,) * (log_w.dim() - 1))
        return _mean(torch.where(own, geometric.unsqueeze(0), log_w.unsqueeze(0)), 1)


def _mean(log_w: Tensor, dim: int = 0) -> Tensor:
    """log of the mean of w."""
    return torch.logsumexp(log_w, dim) - math.log(log_w.shape[dim])
