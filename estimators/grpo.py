"""Group-relative advantages, as in the training of language models: the baseline is the mean of all S samples.

    A_s = (f_s − f̄) / (σ̂ + ε),    σ̂² = 1/(S−1) Σ_s (f_s − f̄)²,    g_l = 1/S Σ_s A_s (z_{s,l} − p_l)

f̄ is the mean of f over the group, and ε a small constant. Without the division E[g] = (S−1)/S ∂E f. The direction is
right, and the length is too small, because f̄ contains f_s itself. Leave-one-out (`rloo`) is S/(S−1) times that, and
unbiased. The division by σ̂ adds a bias: a group in which f varies little counts as much as one in which it varies a
lot. The estimate then does not depend on the scale of f.
Cost: S evaluations, in one call. Biased. GRPO: Shao et al. 2024, arXiv:2402.03300; without the division, Dr. GRPO: Liu
et al. 2025, arXiv:2503.20783.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from estimators.algebra import weighted_sum
from estimators.base import Estimate, SeveralSamples, train_weights
from estimators.noise import race
from estimators.objective import Objective, Sites
from estimators.options import Several
from estimators.sitewise import sitewise

EPSILON = 1e-6
"""ε, in units of f. Where f is the same for all samples, every advantage is 0."""


class Grpo(SeveralSamples):
    """Group-relative advantages.

    Args:
        sizes: K_l of each site.
        samples: S ≥ 2, the size of the group; weights train on the mean over it.
        divide: by the standard deviation of the group.
    """

    unbiased = False

    def __init__(self, sizes: Sequence[int], *, samples: Several = 8, divide: bool = True) -> None:
        super().__init__(sizes, samples=samples)
        self.divide = divide

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        index = race(sitewise(torch.exp, logits), noise)
        loss = objective.hard(index)
        train_weights(loss, 1 / self.evaluations)
        loss = loss.detach()
        return Estimate(loss.mean(0), weighted_sum(self.advantages(loss) / self.evaluations, index.corners))

    def advantages(self, loss: Tensor) -> Tensor:
        """A_s, `(S, *rows)`, of the values of f, `(S, *rows)`. Their sum over S is 0."""
        value = loss.double()  # a constant in f must not show in the deviations
        deviation = value - value[:1]  # exactly 0 where all are equal, which rounding of their mean would not leave
        deviation = deviation - deviation.mean(0)
        if self.divide:
            deviation = deviation / (deviation.square().sum(0) / (self.evaluations - 1)).sqrt().add(EPSILON)
        return deviation.to(loss.dtype)
