"""The straight-through estimator: the gradient at a hard sample is passed to the logits as if sampling were smooth.

    through = "softmax":    g_l = J(softmax(φ_l / t)) ∇_l f(z) / t,    J(p) v = p ⊙ (v − pᵀv)
    through = "identity":   g_l = ∇_l f(z)

z is drawn from softmax(φ / s). By default s = 1, and this is q. Tempered straight-through has t ≠ 1. The decoupled
estimator has s ≠ 1 too. Then z is not a sample of q, and the loss and the weights' gradients are those under
softmax(φ / s). With through = "softmax" and s = t = 1 the mean is exact if f is multilinear, because E_z ∇_l f(z) is
then the gradient of E f in p_l.
Cost: 1 evaluation, at a hard sample. Biased. Bengio, Léonard, Courville 2013, arXiv:1308.3432; decoupled: Shah, Yan,
Mozer, Liu 2024, arXiv:2410.13331.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from estimators.algebra import probability, through_softmax
from estimators.base import Estimate, Estimator, Temperature
from estimators.noise import race
from estimators.objective import Objective, Sites
from estimators.options import Temperatures
from estimators.sitewise import sitewise
from estimators.slopes import slopes_at


class StraightThrough(Estimator):
    """Straight-through.

    Args:
        sizes: K_l of each site.
        through: "softmax" or "identity".
        temperature: t, of the softmax in the backward pass, or a schedule, see `estimators.base.Temperature`.
        forward_temperature: s, of the distribution that is sampled, or a schedule.
    """

    unbiased = False
    pathwise = True

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        through: Literal["softmax", "identity"] = "softmax",
        temperature: Temperatures = 1.0,
        forward_temperature: Temperatures = 1.0,
    ) -> None:
        super().__init__(sizes)
        if through == "identity" and temperature != 1.0:
            raise ValueError("through='identity' has no temperature in the backward pass; set forward_temperature")
        self.through = through
        self.coupled = temperature == forward_temperature  # at all times
        self.temperature = Temperature(temperature)
        self.forward_temperature = Temperature(forward_temperature)

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        s, t = self.forward_temperature(logits), self.temperature(logits)
        drawn_from = sitewise(lambda site: probability(site / s), logits)
        loss, slopes = slopes_at(self, objective, race(drawn_from, noise).corners)
        if self.through == "identity":
            return Estimate(loss, sitewise(lambda site, v: torch.where(site > -torch.inf, v, 0), logits, slopes))
        p = drawn_from if self.coupled else sitewise(lambda site: probability(site / t), logits)
        return Estimate(loss, sitewise(lambda q, v: through_softmax(q, v) / t, p, slopes))
