"""NVIL: the score-function estimator with a running mean and a baseline network.

    g_l = (f(z) − c_ψ(φ) − b) (z_l − p_l),    c_ψ fitted by (f(z) − c_ψ − b)²,    b a running mean of f(z) − c_ψ

The input of the baseline network c_ψ is the probabilities of all sites; it does not depend on the sample. It is s · MLP
with one tanh layer, and s starts at 0. b and c_ψ are those fitted at earlier steps. At the first step b is 0; then it
is set to the first f − c_ψ. Cost: 1 evaluation. Unbiased.

The paper also divides by max(1, σ̂), where σ̂ is a running standard deviation of f − c_ψ − b. This scales every gradient
by a number from earlier steps, so the estimate is of a multiple of ∂E f. With `normalise=True` the estimator therefore
does not claim to be unbiased. Mnih, Gregor 2014, arXiv:1402.0030.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from estimators.algebra import probabilities, scores, weighted
from estimators.base import Estimate, Estimator, train_weights
from estimators.learned import Surrogate
from estimators.noise import race
from estimators.objective import Objective, Sites
from estimators.options import Count, Decay


class Nvil(Estimator):
    """NVIL.

    Args:
        sizes: K_l of each site.
        decay: decay of the running mean and variance, per step.
        normalise: divide by max(1, σ̂), which scales the gradient.
        hidden: width of the tanh layer of c_ψ.
    """

    version = 2
    mean: Tensor
    variance: Tensor
    seen: Tensor

    def __init__(
        self, sizes: Sequence[int], *, decay: Decay = 0.8, normalise: bool = False, hidden: Count = 100
    ) -> None:
        super().__init__(sizes)
        self.decay, self.normalise = decay, normalise
        self.unbiased = not normalise
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("variance", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(()))  # 1 after the first step
        self.baseline = Surrogate(self.sizes, hidden)
        # with two equally likely categories the input 2x − 1 is 0; without this bias every gradient of c_ψ would be 0
        # too
        last = self.baseline.network[-1]
        assert isinstance(last, nn.Linear)
        nn.init.ones_(last.bias)

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        p = probabilities(logits)
        index = race(p, noise)
        loss = objective.hard(index)
        train_weights(loss)
        loss = loss.detach()
        learned = self.baseline(p)
        above = loss - learned
        rest = above - self.mean
        advantage = rest.detach()
        if self.normalise:
            advantage = advantage / self.variance.sqrt().clamp(min=1)
        grads = weighted(advantage, scores(index, p))
        if self.training:
            squared = rest.square()
            self._fit(squared)
            with torch.no_grad():
                centre = above.mean().to(self.mean.dtype)
                if self.normalise:
                    spread = (
                        squared.mean().to(self.variance.dtype) * self.seen
                    )  # 0 at the first step, without a mean yet
                    self.variance.lerp_(spread, 1 - self.decay)
                self.mean.lerp_(centre, 1 - self.decay * self.seen)
                self.seen.fill_(1)
        return Estimate(loss, grads)
