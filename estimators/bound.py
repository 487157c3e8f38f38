"""The bound of S samples that `vimco`, `ovis` and `disarm_bound` are estimates for, and its importance weights.

    w_s = exp(−F_s),    F_s = f(z_s) + log q(z_s),    B = −log ((1/S) Σ_s w_s)
    ∂E[B]/∂φ = E Σ_s (B + v_s) ∇log q(z_s),    v_s = w_s / Σ_r w_r

The samples z_s ~ q are independent. B ∇log q(z_s) is there because the samples come from q, and v_s ∇log q(z_s) because
F_s contains log q. For f = −log p(x, z) the bound is the negative one of the importance weighted autoencoder, with S =
1 the negative ELBO. Burda, Grosse, Salakhutdinov 2016, arXiv:1509.00519.
"""

from __future__ import annotations

import torch
from torch import Tensor

from estimators.algebra import dot, log_probability
from estimators.noise import Categories
from estimators.objective import Sites
from estimators.sitewise import Stacked, sitewise


def log_probabilities(logits: Sites) -> Stacked:
    """log p of each site; finite where a category is forbidden, because 0 · −inf is NaN and none is ever drawn."""
    return sitewise(lambda site: log_probability(site).clamp(min=torch.finfo(site.dtype).min), logits)


def log_weights(loss: Tensor, index: Categories, log_p: Sites) -> Tensor:
    """log w, float64 `(*lead, *rows)`, of samples whose values of f are `loss`."""
    return -(loss.detach().double() + dot(index.corners, log_p).double())


def log_others(log_w: Tensor, dim: int = 0) -> Tensor:
    """log Σ_{r≠s} w_r of every sample s, shaped as log w; samples along `dim`, at least two."""
    log_w = log_w.movedim(dim, 0)
    own = torch.eye(len(log_w), dtype=torch.bool, device=log_w.device).view(len(log_w), -1, *(1,) * (log_w.dim() - 1))
    return torch.logsumexp(log_w.masked_fill(own, -torch.inf), 1).movedim(0, dim)
