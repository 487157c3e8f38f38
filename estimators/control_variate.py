"""What REBAR and RELAX share: a control variate c on the Gumbel-perturbed log-probabilities.

    z = log p − log(−log u),  b = argmax z,  z̃ ~ p(z | b)
    g = [f(b) − c(z̃)] (b − p) + ∂_φ c(z) − ∂_φ c(z̃)

Unbiased for every c: E[c(z̃)(b − p)] + E[∂_φ c(z̃)] = ∂_φ E[c(z̃)] = ∂_φ E[c(z)] = E[∂_φ c(z)]. z̃ stays attached to φ.
The parameters of c descend the variance, E‖g‖² up to a constant, whose single-sample gradient ∂‖g‖²/∂θ is unbiased.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from estimators.base import Estimate, Estimator, Objective, Sites, train_weights
from estimators.noise import conditional_gumbel, gumbel, one_hot, uniform


class Noise(NamedTuple):
    """Uniforms `(*rows, K_l)` per site: u gives z, and v gives z̃ given b."""

    u: Sites
    v: Sites


class ControlVariate(Estimator):
    """An estimator whose subclass gives c as `surrogate`.

    Args:
        sizes: K_l of each site.
        temperature: the initial λ of the relaxation σ_λ(z) = softmax(z / λ), learned as log λ.
    """

    unbiased = True

    def __init__(self, sizes: Sequence[int], temperature: float) -> None:
        super().__init__(sizes)
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature must be a positive number, got {temperature!r}")
        self.log_temperature = nn.Parameter(torch.tensor(float(temperature)).log())

    def surrogate(self, objective: Objective, z: Sites) -> Tensor:
        """c at perturbed log-probabilities `(*rows, K_l)`, giving `(*rows)`; differentiable twice."""
        raise NotImplementedError

    def soft(self, z: Sites) -> Sites:
        """σ_λ(z), in the simplex."""
        # A forbidden category has z = −inf, and ∂(z/λ)/∂λ would be 0 · inf there.
        return tuple(torch.softmax(site.clamp(min=-1e12) / self.log_temperature.exp(), -1) for site in z)

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Noise:
        return Noise(uniform(logits, generator), uniform(logits, generator))

    def _estimate(self, objective: Objective, logits: Sites, noise: Noise) -> Estimate:
        phi = tuple(site.requires_grad_() for site in logits)
        with torch.no_grad():
            index = tuple((site + gumbel(u)).argmax(-1) for site, u in zip(phi, noise.u, strict=True))
            score = [
                one_hot(i, site.shape[-1], site.dtype) - torch.softmax(site, -1)
                for i, site in zip(index, phi, strict=True)
            ]
        loss = objective.hard(index)
        train_weights(loss)
        loss = loss.detach()

        # One term after the other: without tuning, only one graph of the objective is alive at a time.
        z = tuple(torch.log_softmax(site, -1) + gumbel(u) for site, u in zip(phi, noise.u, strict=True))
        _, free = self._slope(objective, z, phi)
        z = tuple(
            conditional_gumbel(torch.log_softmax(site, -1), i, v)
            for site, i, v in zip(phi, index, noise.v, strict=True)
        )
        value, bound = self._slope(objective, z, phi)

        advantage = (loss - value).unsqueeze(-1)
        grads = tuple(advantage * s + d - d_bound for s, d, d_bound in zip(score, free, bound, strict=True))
        if self.training:
            self._fit(sum((g.square().sum(-1) for g in grads), loss.new_zeros(())))
        return Estimate(loss, grads)

    def _slope(self, objective: Objective, z: Sites, phi: Sites) -> tuple[Tensor, Sites]:
        """c(z) and ∂c(z)/∂φ, differentiable in the parameters of c while in training mode."""
        value = self.surrogate(objective, z)
        slope = torch.autograd.grad(value.sum(), phi, create_graph=self.training, materialize_grads=True)
        return (value if self.training else value.detach()), slope
