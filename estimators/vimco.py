"""VIMCO: the gradient of a bound of several samples, with a baseline for each from the others.

    g_l = Σ_s (B − B_s + v_s) (z_{s,l} − p_l)

B and v_s are those of the bound, see `bound`. B_s is B with w_s replaced by the geometric mean of the others. It does
not depend on z_s, so that subtracting it leaves the mean as it is: g is unbiased for the gradient of E[B]. It is biased
for the gradient of E_q f, and so does not claim to be unbiased. Weights train on B, so each sample counts by v_s. The
loss that is returned is the mean of f.
Cost: S evaluations, in one call. Mnih, Rezende 2016, arXiv:1602.06725.
"""

from __future__ import annotations

import torch
from torch import Tensor

from estimators.algebra import scores, weighted_sum
from estimators.base import Estimate, SeveralSamples, train_weights
from estimators.bound import log_others, log_probabilities, log_weights
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
        log_p = log_probabilities(logits)
        log_w = log_weights(loss, index, log_p)
        v = torch.softmax(log_w, 0)
        train_weights(loss, v.to(loss.dtype))
        weight = (v + self._against_baseline(log_w)).to(loss.dtype)
        return Estimate(loss.detach().mean(0), weighted_sum(weight, scores(index, sitewise(torch.exp, log_p))))

    def _against_baseline(self, log_w: Tensor) -> Tensor:
        """B − B_s of every sample, `(S, *rows)`."""
        geometric = (log_w.sum(0) - log_w) / (self.evaluations - 1)
        return torch.logaddexp(log_others(log_w), geometric) - torch.logsumexp(log_w, 0)
