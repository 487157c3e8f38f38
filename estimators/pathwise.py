"""What estimators that use ∂f/∂sample share: the slope of f at a sample, and the Jacobian of a softmax."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from estimators.base import Objective, Sites, train_weights
from estimators.noise import one_hot


def slopes_at(objective: Objective, sample: Sites, share: float = 1.0) -> tuple[Tensor, Sites]:
    """f at a sample `(*lead, *rows, K_l)`, detached, and ∂f/∂sample; weights train on `share` · f.

    Each row's value must depend on that row's sample alone, as the protocol says.
    """
    leaves = tuple(site.detach().requires_grad_() for site in sample)
    loss = objective(leaves)
    train_weights(loss, share)
    slopes = (torch.zeros_like(z) if z.grad is None else z.grad / share for z in leaves)
    return loss.detach(), tuple(slopes)


def one_hots(index: Sites, logits: Sites) -> Sites:
    """`(*lead, *rows)` categories as one-hot `(*lead, *rows, K_l)` in the logits' dtype."""
    return tuple(one_hot(i, site.shape[-1], site.dtype) for i, site in zip(index, logits, strict=True))


def softmaxes(logits: Sites) -> Sites:
    """p of each site."""
    return tuple(torch.softmax(site, -1) for site in logits)


def through_softmax(p: Tensor, slope: Tensor) -> Tensor:
    """J(p) v = p ⊙ (v − pᵀv), what reaches the logits of a slope v at p = softmax(logits); symmetric in its use."""
    return p * (slope - (p * slope).sum(-1, keepdim=True))


def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Σ_l a_lᵀ b_l, `(*lead, *rows)`."""
    terms = [(x * y).sum(-1) for x, y in zip(a, b, strict=True)]
    return sum(terms[1:], terms[0])
