"""Straight-through Gumbel-softmax: a hard sample forward, the Jacobian of its soft sample backward.

    z_l = one_hot(argmax(φ_l + G_l)),    x_l = softmax((φ_l + G_l) / t),    g_l = J(x_l) ∇_l f(z) / t

with Gumbel noise G and J(x) v = x ⊙ (v − xᵀv). Weights train on the hard sample, so their gradient is unbiased. The
logits' gradient is biased. Cost: 1 evaluation, at a hard sample.
Jang, Gu, Poole 2017, arXiv:1611.01144; Maddison, Mnih, Teh 2017, arXiv:1611.00712.
"""

from __future__ import annotations

from collections.abc import Sequence

from estimators.algebra import probability, through_softmax
from estimators.base import Estimate, Estimator, Temperature
from estimators.noise import Categories, perturbed, smallest
from estimators.objective import Objective, Sites
from estimators.options import Temperatures
from estimators.sitewise import sitewise
from estimators.slopes import slopes_at


class GumbelStraightThrough(Estimator):
    """Straight-through Gumbel-softmax.

    Args:
        sizes: K_l of each site.
        temperature: t, or a schedule, see `estimators.base.Temperature`.
    """

    unbiased = False
    pathwise = True

    def __init__(self, sizes: Sequence[int], *, temperature: Temperatures = 1.0) -> None:
        super().__init__(sizes)
        self.temperature = Temperature(temperature)

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        t = self.temperature(logits)
        z = sitewise(perturbed, logits, noise)
        gap = sitewise(lambda site: site.amax(-1, keepdim=True) - site, z)  # distance to the winner, ≥ 0
        loss, slopes = slopes_at(self, objective, Categories(map(smallest, gap.stacks), gap).corners)
        return Estimate(loss, sitewise(lambda d, v: through_softmax(probability(d / -t), v) / t, gap, slopes))
