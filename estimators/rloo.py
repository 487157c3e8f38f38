"""REINFORCE with a leave-one-out baseline: S samples, each with the mean of the others as its baseline.

    g_l = 1/(S−1) Σ_s (f_s − f̄)(z_{s,l} − p_l) = 1/(S−1) Σ_s (f_s − f̄) z_{s,l}

(the p_l term vanishes since Σ_s (f_s − f̄) = 0). Unchanged by f + constant.
Cost: S evaluations, in one call. Unbiased. Kool, van Hoof, Welling 2019, "Buy 4 REINFORCE samples, get a baseline for
free!".
"""

from __future__ import annotations

from torch import Tensor

from estimators.algebra import one_hots, weighted_sum
from estimators.base import Estimate, Objective, SeveralSamples, Sites, train_weights
from estimators.noise import gumbel_argmax


class Rloo(SeveralSamples):
    """REINFORCE, leave one out.

    Args:
        sizes: K_l of each site.
        samples: S ≥ 2, the leading dimension of the one call to the objective; weights train on the mean over it.
    """

    unbiased = True

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        index = gumbel_argmax(logits, noise)
        loss = objective.hard(index)
        train_weights(loss, 1 / self.evaluations)
        loss = loss.detach()
        # float64: a constant in f must not show in the sum of the deviations
        value = self._value(loss, index, logits).double()
        advantage = ((value - value.mean(0)) / (self.evaluations - 1)).to(loss.dtype)
        return Estimate(loss.mean(0), weighted_sum(advantage, one_hots(index, logits)))

    def _value(self, loss: Tensor, index: Sites, logits: Sites) -> Tensor:
        """What the score is weighted with, `(S, *rows)`, before the mean of the others is subtracted."""
        return loss
