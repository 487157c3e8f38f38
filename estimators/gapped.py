"""Gapped straight-through: straight-through at logits that are shifted so that the sample wins by a gap.

    φ'_k = max_j φ_j                                   for the sampled category k = z_l,
    φ'_k = φ_k − max(0, φ_k − max_j φ_j + gap)         for every other,
    g_l = J(softmax(φ'_l / t)) ∇_l f(z) / t,    J(p) v = p ⊙ (v − pᵀv)

The gradient treats the shift as a constant. Straight-through Gumbel-softmax also uses logits at which the sample wins:
it adds noise to them. Here nothing is random once z is drawn, so the variance is smaller. The gap is a number, or
"expected": −log(1 − p_k) / p_k. This is the mean gap between the largest and the second largest entry of φ + Gumbel
noise, given that k wins.
Cost: 1 evaluation, at a hard sample. Biased. Fan, Chi, Rudnicky, Ramadge 2022, arXiv:2206.07235 (GST-1.0 and GST-p).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor

from estimators.algebra import probabilities, probability, through_softmax
from estimators.base import Estimate, Estimator, Temperature
from estimators.noise import race
from estimators.objective import Objective, Sites
from estimators.options import Range, Temperatures
from estimators.sitewise import sitewise
from estimators.slopes import slopes_at


class Gapped(Estimator):
    """Gapped straight-through.

    Args:
        sizes: K_l of each site.
        gap: by how much the sampled category leads the others, at least; or "expected", see above.
        temperature: t, or a schedule, see `estimators.base.Temperature`.
    """

    unbiased = False
    pathwise = True

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        gap: Annotated[float | Literal["expected"], Range(ge=0)] = 1.0,
        temperature: Temperatures = 1.0,
    ) -> None:
        super().__init__(sizes)
        self.gap = gap
        self.temperature = Temperature(temperature)

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        t = self.temperature(logits)
        p = probabilities(logits)
        sample = race(p, noise).corners
        loss, slopes = slopes_at(self, objective, sample)

        def through(site: Tensor, q: Tensor, z: Tensor, slope: Tensor) -> Tensor:
            gap = self._gap((q * z).sum(-1, keepdim=True))
            # the greatest logit is 0, as `_estimate` is given them
            shifted = torch.where(z > 0, 0, torch.minimum(site, -gap))
            return through_softmax(probability(shifted / t), slope) / t

        return Estimate(loss, sitewise(through, logits, p, sample, slopes))

    def _gap(self, winner: Tensor) -> Tensor:
        """The gap, `(*rows, n, 1)`, from the probability of the sampled category."""
        if self.gap != "expected":
            return torch.full_like(winner, float(self.gap))
        eps = torch.finfo(winner.dtype).eps
        winner = winner.clamp(eps, 1 - eps)  # it is 1 at p = 0, and infinite at p = 1
        return -torch.log1p(-winner) / winner
