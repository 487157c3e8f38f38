"""Hard concrete: the gradient of f at a soft sample that is stretched and projected back, so that it may be one-hot.

    x_l = softmax((φ_l + G_l) / t),    y_l = 1/K + s (x_l − 1/K),    z_l = Π(y_l),    g_l = s/t J(x_l) Π′ ∇_l f(z)
    Π′ v = v − mean of v over the support of z_l on the support, and 0 elsewhere

with Gumbel noise G, the stretch s > 1 and Π, the Euclidean projection onto the simplex. The published form is that of
two categories. There Π clips y_l to [0, 1], and s = ζ − γ for the ends γ = −0.1 and ζ = 1.1. More categories are an
extension of this project. Like `concrete` it is an unbiased gradient of another objective, E f(z), and so biased for
E_q f. Weights train on f(z). Where z_l is one-hot, g_l is 0.
Cost: 1 evaluation, at a soft or one-hot sample. Biased.
Louizos, Welling, Kingma 2018, arXiv:1712.01312; the projection: Martins, Astudillo 2016, arXiv:1602.02068.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from estimators.algebra import jacobian, softmax
from estimators.base import Estimate, Estimator, Temperature
from estimators.noise import perturbed
from estimators.objective import Objective, Sites
from estimators.options import Range, Temperatures
from estimators.sitewise import sitewise
from estimators.slopes import slopes_at


class HardConcrete(Estimator):
    """The hard concrete relaxation.

    Args:
        sizes: K_l of each site.
        temperature: t, or a schedule, see `estimators.base.Temperature`.
        stretch: s. With 1 it is `concrete`.
    """

    unbiased = False
    relaxed = True
    pathwise = True

    def __init__(
        self, sizes: Sequence[int], *, temperature: Temperatures = 2 / 3, stretch: Annotated[float, Range(ge=1)] = 1.2
    ) -> None:
        super().__init__(sizes)
        self.temperature = Temperature(temperature)
        self.stretch = stretch

    def _stretched(self, x: Tensor) -> Tensor:
        return x * self.stretch + (1 - self.stretch) / x.shape[-1]

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        t = self.temperature(logits)
        soft = sitewise(lambda site, u: softmax(perturbed(site, u) / t), logits, noise)
        sample = sitewise(lambda x: onto_simplex(self._stretched(x)), soft)
        loss, slopes = slopes_at(self, objective, sample)

        def back(x: Tensor, z: Tensor, slope: Tensor) -> Tensor:
            support = z > 0
            slope = torch.where(support, slope, 0)  # a forbidden category is never in it, and may have no slope
            mean = slope.sum(-1, keepdim=True) / support.sum(-1, keepdim=True)
            return jacobian(x, torch.where(support, slope - mean, 0)) * (self.stretch / t)

        return Estimate(loss, sitewise(back, soft, sample, slopes))


def onto_simplex(y: Tensor) -> Tensor:
    """The nearest point of the simplex in the last dimension: max(y − τ, 0) with the τ that makes its sum 1."""
    falling = y.sort(-1, descending=True).values
    count = torch.arange(1, y.shape[-1] + 1, device=y.device, dtype=y.dtype)
    thresholds = (falling.cumsum(-1) - 1) / count  # τ if the support were the first 1, 2, … entries
    size = (falling > thresholds).sum(-1, keepdim=True)
    return (y - thresholds.gather(-1, size - 1)).clamp(min=0)
