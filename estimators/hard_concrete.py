"""Hard concrete: the gradient of f at a soft sample that is stretched and projected back, so that it may be one-hot.

    x_l = softmax((φ_l + G_l) / t),    z_l = Π(s x_l),    g_l = s/t J(x_l) D ∇_l f(z),    J(x) v = x ⊙ (v − xᵀv)
    D v = v − m where z_l > 0, and 0 elsewhere; m is the mean of v where z_l > 0

with the logits φ_l, Gumbel noise G, the stretch s > 1, and Π, which maps to the nearest point of the simplex. Adding a
constant to all entries does not change Π. So s x may be replaced by 1/K + s (x − 1/K), which stretches x away from the
centre of the simplex of K categories. At K = 2 it is the published form: z is s x + (1 − s)/2, clipped to [0, 1], with
the ends γ = (1 − s)/2 and ζ = γ + s. More categories are an extension of this project.
Like `concrete` it is an unbiased gradient of another objective, E f(z), and so biased for E_q f. Weights train on f(z).
Where z_l is one-hot, g_l is 0.
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

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        t = self.temperature(logits)
        soft = sitewise(lambda site, u: softmax(perturbed(site, u) / t), logits, noise)
        # rounding could let a forbidden category, where x is 0, into the support
        sample = sitewise(lambda x: torch.where(x > 0, onto_simplex(self.stretch * x), 0), soft)
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
    size = (falling > thresholds).sum(-1, keepdim=True).clamp(min=1)  # 0 where y is NaN
    return (y - thresholds.gather(-1, size - 1)).clamp(min=0)
