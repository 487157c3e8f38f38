"""NVIL: the score function with a learned baseline beside a running mean.

    g_l = (f(z) − b − c_ψ(φ)) (z_l − p_l),    c_ψ fitted by (f(z) − b − c_ψ)²,    b ← decay · b + (1 − decay) · mean(f)

c_ψ sees what q depends on and no sample: here the probabilities of all sites, which are all the input there is. It is
s · MLP with one tanh layer and s initialised to 0. b and c_ψ are of earlier steps. Cost: 1 evaluation. Unbiased.

The paper also divides by max(1, σ̂), a running standard deviation of f − b − c_ψ. Every gradient is then scaled by a
number of earlier steps, so that what is estimated is no longer ∂E f but a multiple: `normalise=True` claims no more.
Mnih, Gregor 2014, arXiv:1402.0030.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from estimators.base import Estimate, Estimator, Objective, Sites, train_weights
from estimators.noise import gumbel_argmax, uniform
from estimators.pathwise import one_hots, softmaxes
from estimators.surrogate import Surrogate


class Nvil(Estimator):
    """NVIL.

    Args:
        sizes: K_l of each site.
        decay: of the running mean and variance, per step.
        normalise: divide by max(1, σ̂), which scales the gradient.
        hidden: width of the tanh layer of c_ψ.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, sizes: Sequence[int], *, decay: float = 0.9, normalise: bool = False, hidden: int = 10) -> None:
        super().__init__(sizes)
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        self.decay, self.normalise = decay, normalise
        self.unbiased = not normalise
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("variance", torch.zeros(()))
        self.baseline = Surrogate(self.sizes, hidden)

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Sites:
        return uniform(logits, generator)

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        index = gumbel_argmax(logits, noise)
        loss = objective.hard(index)
        train_weights(loss)
        loss = loss.detach()
        p = softmaxes(logits)
        rest = loss - self.mean - self.baseline(p)
        advantage = rest.detach()
        if self.normalise:
            advantage = advantage / self.variance.sqrt().clamp(min=1)
        grads = tuple(advantage.unsqueeze(-1) * (z - q) for z, q in zip(one_hots(index, logits), p, strict=True))
        if self.training:
            self._fit(rest.square())
            with torch.no_grad():
                self.mean.lerp_(loss.mean().to(self.mean.dtype), 1 - self.decay)
                self.variance.lerp_(rest.square().mean().to(self.variance.dtype), 1 - self.decay)
        return Estimate(loss, grads)
