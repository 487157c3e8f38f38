"""Rao-Blackwellised straight-through Gumbel-softmax: the Jacobian is averaged over noise that gives the same sample.

    g_l = 1/S Σ_s J(softmax(z̃_{l,s} / t)) ∇_l f(z) / t,    z̃_{l,s} ~ p(φ_l + G | argmax = z_l)

with Gumbel noise G and J(x) v = x ⊙ (v − xᵀv). For S = 1 it has the distribution of straight-through Gumbel-softmax. A
larger S gives the same mean and less variance, without more evaluations of f. As S → ∞ and t → 0 it tends to the mean
of straight-through and DARN (Shekhovtsov 2023).
Cost: 1 evaluation, at a hard sample. Biased. Paulus, Maddison, Krause 2021, arXiv:2010.04838.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from estimators.algebra import jacobian, probabilities
from estimators.base import Estimate, Estimator, Temperature
from estimators.noise import race, uniform
from estimators.objective import Objective, Sites
from estimators.options import Count, Temperatures
from estimators.sitewise import sitewise
from estimators.slopes import slopes_at


class Noise(NamedTuple):
    """Uniforms: u `(*rows, K_l)` gives z, and v `(S, *rows, K_l)` gives z̃ given z."""

    u: Sites
    v: Sites


class GumbelRao(Estimator):
    """Gumbel-Rao.

    Args:
        sizes: K_l of each site.
        temperature: t, or a schedule, see `estimators.base.Temperature`.
        samples: S, draws of the noise; f is evaluated once.
    """

    unbiased = False
    pathwise = True

    def __init__(self, sizes: Sequence[int], *, temperature: Temperatures = 1.0, samples: Count = 10) -> None:
        super().__init__(sizes)
        self.temperature = Temperature(temperature)
        self.samples = samples

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Noise:
        return Noise(uniform(logits, generator), uniform(logits, generator, (self.samples,)))

    def _estimate(self, objective: Objective, logits: Sites, noise: Noise) -> Estimate:
        t = self.temperature(logits)
        p = probabilities(logits)
        index = race(p, noise.u)
        loss, slopes = slopes_at(self, objective, index.corners)

        def averaged(q: Tensor, i: Tensor, v: Tensor, slope: Tensor) -> Tensor:
            slope = torch.where(q > 0, slope, 0)  # a forbidden category may have no slope
            return given_sample(q, i, v, slope, t)

        return Estimate(loss, sitewise(averaged, p, index, noise.v, slopes))


def given_sample(p: Tensor, index: Tensor, v: Tensor, slope: Tensor, t: Tensor) -> Tensor:
    """1/S Σ_s J(softmax(z̃_s / t)) ∇f / t, `(*rows, K)`, where z̃_s ~ p(log p + G | the category is `index`).

    Args:
        p: probabilities `(*rows, K)`.
        index: the sample, int64 `(*rows)`.
        v: uniforms `(S, *rows, K)`.
        slope: ∇f `(*rows, K)`, finite.
        t: the temperature.
    """
    # z̃ = −log y as in `noise.conditional_gumbel`, but without a log of sums; y is inf where p underflows
    y = torch.log(v).neg_()
    winner = index.expand(v.shape[:-1]).unsqueeze(-1)
    least = y.gather(-1, winner)
    # y / least is 1 for the winner and larger for the others. In place, because memory traffic dominates the time
    soft = y.div_(p).div_(least).add_(1).scatter_(-1, winner, 1).log_().div_(-t).exp_()
    soft.div_(soft.sum(-1, keepdim=True))
    return jacobian(soft, slope).mean(0) / t
