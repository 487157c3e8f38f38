"""MuProp: the score function, with the first-order Taylor expansion of f around the mean as its control variate.

    g_l = [f(z) − f(p) − Σ_m ∇_m f(p)ᵀ (z_m − p_m)] (z_l − p_l) + J(p_l) ∇_l f(p)

The expansion h(z) = f(p) + ∇f(p)ᵀ(z − p) is linear in each site, so that E[h(z)(z_l − p_l)] = J(p_l) ∇_l f(p) is known.
Cost: 2 evaluations, one of them at p, off the vertices, without gradients for weights. Unbiased.
Gu, Levine, Sutskever, Mnih 2016, arXiv:1511.05176.
"""

from __future__ import annotations

import torch

from estimators.base import Estimate, Estimator, Objective, Sites, train_weights
from estimators.noise import gumbel_argmax, uniform
from estimators.pathwise import dot, one_hots, softmaxes, through_softmax


class MuProp(Estimator):
    """MuProp.

    Args:
        sizes: K_l of each site.
    """

    unbiased = True
    relaxed = True
    evaluations = 2

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Sites:
        return uniform(logits, generator)

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        index = gumbel_argmax(logits, noise)
        loss = objective.hard(index)
        train_weights(loss)
        loss = loss.detach()
        p = tuple(q.requires_grad_() for q in softmaxes(logits))
        mean = objective.control(p)
        slopes: Sites = tuple(torch.zeros_like(q) for q in p)
        if mean.requires_grad:  # else f is constant
            slopes = torch.autograd.grad(mean.sum(), p, materialize_grads=True)
        p, mean = tuple(q.detach() for q in p), mean.detach()
        score = tuple(z - q for z, q in zip(one_hots(index, logits), p, strict=True))
        rest = (loss - mean - dot(slopes, score)).unsqueeze(-1)
        return Estimate(loss, tuple(rest * s + through_softmax(q, v) for s, q, v in zip(score, p, slopes, strict=True)))
