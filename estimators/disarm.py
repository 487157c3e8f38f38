"""DisARM for categoricals: two antithetic samples by stick breaking, with the noise of each coin integrated out.

A site is a sequence of coins with logits α, see `sticks`. The gradient in α is ½ (f(z) − f(z̃)) times the weight that
`sticks.antithetic` gives to each coin.

For two categories this is DisARM, also called U2G. Cost: 2 evaluations, in one call. Unbiased.
Dong, Mnih, Tucker 2020, arXiv:2006.10680; for categoricals 2021, arXiv:2106.08056.
"""

from __future__ import annotations

from estimators.base import Estimate, Estimator, train_weights
from estimators.noise import Categories
from estimators.objective import Objective, Sites
from estimators.sitewise import Stacked, stacked, stacks
from estimators.sticks import antithetic, sticks, to_logits


class DisARM(Estimator):
    """DisARM, by stick breaking.

    Args:
        sizes: K_l of each site.
    """

    unbiased = True
    evaluations = 2

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        phi = stacked(logits)
        rows = [sticks(stack) for stack in phi.stacks]
        pairs = [antithetic(of, u) for of, u in zip(rows, stacks(noise, phi.layout), strict=True)]
        loss = objective.hard(Categories((pair.drawn for pair in pairs), phi))
        train_weights(loss, 0.5)
        loss = loss.detach()
        half = ((loss[0] - loss[1]) / 2)[..., None, None]
        grads = (to_logits(of, half * pair.weight) for of, pair in zip(rows, pairs, strict=True))
        return Estimate(loss.mean(0), Stacked(grads, phi.layout))
