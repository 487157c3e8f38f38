"""The straight-through estimator: the gradient at a hard sample, passed to the logits as if sampling were smooth.

    through = "softmax":    g_l = J(p_l) ∇_l f(z),    J(p) v = p ⊙ (v − pᵀv)
    through = "identity":   g_l = ∇_l f(z)

Cost: 1 evaluation. Biased; through the softmax exact if f is multilinear, since then E_z ∇_l f(z) is the gradient of
E f in p_l. Bengio, Léonard, Courville 2013, arXiv:1308.3432.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from estimators.base import Estimate, Estimator, Objective, Sites
from estimators.noise import gumbel_argmax, uniform
from estimators.pathwise import one_hots, slopes_at, softmaxes, through_softmax


class StraightThrough(Estimator):
    """Straight-through.

    Args:
        sizes: K_l of each site.
        through: "softmax" or "identity".
    """

    unbiased = False

    def __init__(self, sizes: Sequence[int], *, through: str = "softmax") -> None:
        super().__init__(sizes)
        if through not in ("softmax", "identity"):
            raise ValueError(f"through must be 'softmax' or 'identity', got {through!r}")
        self.through = through

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Sites:
        return uniform(logits, generator)

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        loss, slopes = slopes_at(objective, one_hots(gumbel_argmax(logits, noise), logits))
        if self.through == "identity":
            return Estimate(loss, slopes)
        grads = (through_softmax(p, v) for p, v in zip(softmaxes(logits), slopes, strict=True))
        return Estimate(loss, tuple(grads))
