"""What REBAR and RELAX share: a control variate c on the Gumbel-perturbed log-probabilities.

    z = log p − log(−log u),  b = argmax z,  z̃ ~ p(z | b)
    g = [f(b) − c(z̃)] (b − p) + ∂_φ c(z) − ∂_φ c(z̃)

Unbiased for every c: E[c(z̃)(b − p)] + E[∂_φ c(z̃)] = ∂_φ E[c(z̃)] = ∂_φ E[c(z)] = E[∂_φ c(z)]. z̃ stays attached to φ.
The parameters of c descend the variance, E‖g‖² up to a constant, whose single-sample gradient ∂‖g‖²/∂θ is unbiased.

The noise v of z̃ is drawn by itself, or it is the one with which z̃ = z, held fixed (`coupled`; Tucker et al., App. C):

    v_b = exp(−e^{−z_b}),    v_i = exp(−p_i (e^{−z_i} − e^{−z_b}))

which is distributed in the same way given b, so that nothing changes in expectation. Then ∂z̃_i/∂log p_i is
1 − e^{z_i − z_b} where ∂z_i/∂log p_i = 1, and c has one value and one slope: one evaluation does for both terms,

    g = [f(b) − c(z)] (b − p) + J (∂c/∂z ⊙ e^{z − z_b}),    J v = v − p Σ v
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from estimators.algebra import log_probability, norm_sq, scores, softmax
from estimators.base import Estimate, Estimator, Objective, Sites, train_weights
from estimators.noise import conditional_gumbel, gumbel, gumbel_argmax, uniform
from estimators.sitewise import Stacked, sitewise, stacked, stacks


class Noise(NamedTuple):
    """Uniforms `(*rows, K_l)` per site: u gives z, and v gives z̃ given b; no v where z̃ is coupled to z."""

    u: Sites
    v: Sites


class ControlVariate(Estimator):
    """An estimator whose subclass gives c as `surrogate`.

    Args:
        sizes: K_l of each site.
        temperature: the initial λ of the relaxation σ_λ(z) = softmax(z / λ), learned as log λ.
        coupled: z̃ = z in value; else z̃ has noise of its own.
    """

    unbiased = True

    def __init__(self, sizes: Sequence[int], temperature: float, coupled: bool) -> None:
        super().__init__(sizes)
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature must be a positive number, got {temperature!r}")
        self.log_temperature = nn.Parameter(torch.tensor(float(temperature)).log())
        self.coupled = coupled

    def surrogate(self, objective: Objective, z: Sites) -> Tensor:
        """c at perturbed log-probabilities `(*rows, K_l)`, giving `(*rows)`; differentiable twice."""
        raise NotImplementedError

    def soft(self, z: Sites) -> Sites:
        """σ_λ(z), in the simplex."""
        # A forbidden category has z = −inf: ∂(z/λ)/∂λ would be 0 · inf there, and f need not have a slope.
        scale = self.log_temperature.exp()
        return sitewise(lambda site: torch.where(site.isinf(), 0, softmax(site.clamp(min=-1e12) / scale)), z)

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Noise:
        return Noise(uniform(logits, generator), () if self.coupled else uniform(logits, generator))

    def _estimate(self, objective: Objective, logits: Sites, noise: Noise) -> Estimate:
        with torch.no_grad():
            index = gumbel_argmax(logits, noise.u)
            score = stacked(scores(index, logits))
        loss = objective.hard(index)
        train_weights(loss)
        loss = loss.detach()

        layout = score.layout
        phi = Stacked((site.detach().requires_grad_() for site in stacks(logits, layout)), layout)
        log_p = sitewise(log_probability, phi)
        z = sitewise(lambda lp, u: lp + gumbel(u), log_p, noise.u)
        # One term after the other: without tuning, only one graph of the objective is alive at a time.
        value, slope = self._slope(objective, z)
        if self.coupled:
            kept = (s * (x - x.amax(-1, keepdim=True)).detach().exp() for s, x in zip(slope, z.stacks, strict=True))
            difference = self._to_logits(z, tuple(kept), phi)
        else:
            free = self._to_logits(z, slope, phi)
            z = sitewise(conditional_gumbel, log_p, index, noise.v)
            value, slope = self._slope(objective, z)
            difference = tuple(d - e for d, e in zip(free, self._to_logits(z, slope, phi), strict=True))

        advantage = (loss - value)[..., None, None]
        grads = Stacked((advantage * s + d for s, d in zip(score.stacks, difference, strict=True)), layout)
        if self.training:
            self._fit(norm_sq(grads))
        return Estimate(loss, grads)

    def _slope(self, objective: Objective, z: Stacked) -> tuple[Tensor, Sites]:
        """c(z) and ∂c(z)/∂z, stack by stack, differentiable in the parameters of c while in training mode."""
        leaves = Stacked((stack.detach().requires_grad_() for stack in z.stacks), z.layout)
        value = self.surrogate(objective, leaves)
        slope = torch.autograd.grad(value.sum(), leaves.stacks, create_graph=self.training, materialize_grads=True)
        return (value if self.training else value.detach()), slope

    def _to_logits(self, path: Stacked, slope: Sites, phi: Stacked) -> Sites:
        """∂φ of c along a path from φ to z or z̃, stack by stack."""
        return torch.autograd.grad(
            path.stacks, phi.stacks, slope, create_graph=self.training, retain_graph=True, materialize_grads=True
        )
