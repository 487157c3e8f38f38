"""OVIS: the gradient of a bound of several samples, with a control variate of nearly the least variance.

    g_l = Σ_s (B + v_s + c_s) (z_{s,l} − p_l)

for the samples z_s, s = 1 … S. B and v_s are those of the bound, see `bound`. If ‖∇log q(z_s)‖² hardly depends on z_s,
the variance is nearly least with c_s = −E_{z_s} [B + v_s], the mean over z_s alone. Two forms of c_s approach it:

    −(1/R) Σ_r (B + v_s with z_s replaced by y_r)             R auxiliary samples y_r ~ q
    log (Σ_{r≠s} w_r / (S−1)) − γ v_s + (1−γ) log (1−1/S)     the limit of many samples S

The first is independent of z_s, and so is the second with γ = 0: g is then unbiased for the gradient of E[B]. γ = 0 is
meant for weights w of which one dominates, γ = 1 for weights that are nearly equal. With γ > 0 the share γ of v_s is
lost, and g is biased for E[B] too. Weights of f train on B, each sample counting by v_s; auxiliary samples do not train
them. The loss that is returned is the mean of f over the S samples.
Cost: S + R evaluations, in one call. Liévin et al. 2020, arXiv:2008.01998.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from estimators.algebra import scores, weighted_sum
from estimators.base import Estimate, Estimator, train_weights
from estimators.bound import log_others, log_probabilities, log_weights
from estimators.noise import gumbel_argmax, uniform
from estimators.objective import Objective, Sites
from estimators.options import Count, Range, Several
from estimators.sitewise import sitewise


class Ovis(Estimator):
    """OVIS.

    Args:
        sizes: K_l of each site.
        samples: S ≥ 2; weights train on the bound.
        auxiliary: R, samples for the control variate alone.
        gamma: γ of the control variate for many samples, which replaces the auxiliary samples; None: those are used.
    """

    unbiased = False

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        samples: Several = 2,
        auxiliary: Count = 1,
        gamma: Annotated[float | None, Range(ge=0, le=1)] = None,
    ) -> None:
        super().__init__(sizes)
        if gamma is not None and auxiliary != 1:
            raise ValueError(f"with gamma there are no auxiliary samples, got gamma={gamma:g}, auxiliary={auxiliary}")
        self.samples, self.gamma = samples, gamma
        self.evaluations = samples + (auxiliary if gamma is None else 0)

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Sites:
        """Uniforms `(S + R, *rows, K_l)` for each site; the auxiliary samples are the last."""
        return uniform(logits, generator, (self.evaluations,))

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        index = gumbel_argmax(logits, noise)
        loss = objective.hard(index)
        log_p = log_probabilities(logits)
        log_w, log_y = log_weights(loss, index, log_p).split([self.samples, self.evaluations - self.samples])
        v = torch.softmax(log_w, 0)
        train_weights(loss, torch.cat([v, torch.zeros_like(log_y)]).to(loss.dtype))
        weight = torch.cat([self._weight(log_w, log_y, v), torch.zeros_like(log_y)]).to(loss.dtype)
        mean = loss.detach()[: self.samples].mean(0)
        return Estimate(mean, weighted_sum(weight, scores(index, sitewise(torch.exp, log_p))))

    def _weight(self, log_w: Tensor, log_y: Tensor, v: Tensor) -> Tensor:
        """B + v_s + c_s, `(S, *rows)`. −log 1/S is left out of both B and c_s."""
        whole, others = torch.logsumexp(log_w, 0), log_others(log_w)
        if self.gamma is not None:
            return others - whole + (1 - self.gamma) * v - self.gamma * math.log(1 - 1 / self.samples)
        log_y = log_y.unsqueeze(1)
        replaced = torch.logaddexp(others, log_y)  # log Σ w with w_s replaced by that of y_r, (R, S, *rows)
        return v - whole + (replaced - torch.exp(log_y - replaced)).mean(0)
