"""NVIL: the score function with a learned baseline beside a running mean.

    g_l = (f(z) − c_ψ(φ) − b) (z_l − p_l),    c_ψ fitted by (f(z) − c_ψ − b)²,    b a running mean of f(z) − c_ψ

c_ψ sees what q depends on and no sample: here the probabilities of all sites, which are all the input there is. It is
s · MLP with one tanh layer and s initialised to 0. b and c_ψ are of earlier steps: b begins at the first f, after that
step. Cost: 1 evaluation. Unbiased.

The paper also divides by max(1, σ̂), a running standard deviation of f − c_ψ − b. Every gradient is then scaled by a
number of earlier steps, so that what is estimated is no longer ∂E f but a multiple: `normalise=True` claims no more.
Mnih, Gregor 2014, arXiv:1402.0030.
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
        decay: of the running mean and variance, per step.
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
        # 2x − 1 is 0 where two categories are equally likely, and without this so would be every gradient of c_ψ
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
                    spread = squared.mean().to(self.variance.dtype) * self.seen  # about a mean that there was
                    self.variance.lerp_(spread, 1 - self.decay)
                self.mean.lerp_(centre, 1 - self.decay * self.seen)
                self.seen.fill_(1)
        return Estimate(loss, grads)
