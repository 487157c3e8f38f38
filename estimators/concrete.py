"""The Concrete relaxation (Gumbel-softmax): the gradient of f at a soft sample.

    x_l = softmax((φ_l + G_l) / t),    g = ∂f(x)/∂φ

with Gumbel noise G and the temperature t. It is an unbiased gradient of a different objective, E f(x), and so biased
for E_q f. Weights train on f(x), so their gradient is biased too. Both biases vanish as t → 0, while the variance grows
like 1/t. Cost: 1 evaluation, at a soft sample. Biased.
Maddison, Mnih, Teh 2017, arXiv:1611.00712; Jang, Gu, Poole 2017, arXiv:1611.01144.
"""

from __future__ import annotations

from collections.abc import Sequence

from estimators.algebra import softmax, through_softmax
from estimators.base import Estimate, Estimator, Temperature
from estimators.noise import perturbed
from estimators.objective import Objective, Sites
from estimators.options import Temperatures
from estimators.sitewise import sitewise
from estimators.slopes import slopes_at


class Concrete(Estimator):
    """The Concrete relaxation.

    Args:
        sizes: K_l of each site.
        temperature: t, or a schedule, see `estimators.base.Temperature`. The VMO paper says "0.1 to 0 on a log scale".
            A log scale cannot reach 0, so the default ends at 1e-3.
    """

    unbiased = False
    relaxed = True
    pathwise = True

    def __init__(self, sizes: Sequence[int], *, temperature: Temperatures = (0.1, 1e-3)) -> None:
        super().__init__(sizes)
        self.temperature = Temperature(temperature)

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        t = self.temperature(logits)
        sample = sitewise(lambda site, u: softmax(perturbed(site, u) / t), logits, noise)
        loss, slopes = slopes_at(self, objective, sample)
        return Estimate(loss, sitewise(lambda x, v: through_softmax(x, v) / t, sample, slopes))
