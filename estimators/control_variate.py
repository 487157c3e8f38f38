"""The estimator that REBAR and RELAX share: a control variate c of the Gumbel-perturbed log-probabilities.

    z = log p − log(−log u),  b = argmax z,  z̃ ~ p(z | b)
    g = [f(b) − c(z̃)] (b − p) + ∂_φ c(z) − ∂_φ c(z̃),    c(z) = η [f(σ_λ(z)) + r_ρ(z)],    σ_λ(z) = softmax(z / λ)

with p = softmax(φ), b one-hot where it is added, uniform noise u, and z̃ differentiated through φ. Unbiased for every c:
E[c(z̃)(b − p)] + E[∂_φ c(z̃)] = ∂_φ E[c(z̃)] = ∂_φ E[c(z)] = E[∂_φ c(z)]. The last equality needs a continuous c. An f
with an argmax inside has jumps, which E[∂_φ c(z)] would miss. So if f has no slope in some site, f is left out of c.

The noise v of z̃ is independent by default. With `coupled` it is the noise for which z̃ = z, held fixed (Tucker et al.,
App. C):

    v_b = exp(−e^{−z_b}),    v_i = exp(−p_i (e^{−z_i} − e^{−z_b}))

Given b it has the same distribution, so no expectation changes. Now ∂z_i/∂log p_i = 1 and
∂z̃_i/∂log p_i = 1 − e^{z_i − z_b}. One evaluation of c and its slope serves both terms:

    g = [f(b) − c(z)] (b − p) + J (∂c/∂z ⊙ e^{z − z_b}),    J v = v − p Σ v

The parameters of c are tuned to reduce the variance (E‖g‖² up to a constant), by descent or by regression: see
`tuning`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from estimators.algebra import jacobian, log_probability, scores, softmax
from estimators.base import Estimate, Estimator, train_weights
from estimators.noise import Categories, conditional_gumbel, perturbed, uniform
from estimators.objective import Objective, Sites
from estimators.sitewise import Stacked, sitewise
from estimators.tuning import Descent, Drawn, Regression

Tuning = Literal["descent", "regression"]


class Noise(NamedTuple):
    """Uniforms `(*rows, K_l)` per site: u gives z, and v gives z̃ given b. v is empty if z̃ is coupled to z."""

    u: Sites
    v: Sites


class ControlVariate(Estimator):
    """The estimator above; a subclass may add r_ρ by overriding `correction`.

    Args:
        sizes: K_l of each site.
        temperature: the initial λ, learned as log λ.
        eta: the initial η; None: starts at 1 and is not tuned by descent.
        relaxed: whether f(σ_λ(z)) is part of c.
        coupled: whether z̃ = z in value; otherwise z̃ has independent noise.
        tuning: "descent" or "regression".
        every: with regression, λ is updated at every `every`-th step.
        part: n; f(σ_λ(z)) uses the first of n parts of the data, at 1/n of the cost. 1 uses all data.
    """

    unbiased = True

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        temperature: float,
        eta: float | None,
        relaxed: bool,
        coupled: bool,
        tuning: Tuning,
        every: int,
        part: int,
    ) -> None:
        super().__init__(sizes)
        if eta is not None and not relaxed:
            raise ValueError(f"eta={eta!r} needs the relaxed objective")
        if tuning == "regression" and not (relaxed and coupled):
            raise ValueError("tuning='regression' needs the relaxed objective and coupled=True")
        if part > 1 and not relaxed:
            raise ValueError(f"part={part} needs the relaxed objective")
        self.log_temperature = nn.Parameter(torch.tensor(float(temperature)).log())
        self.relaxed, self.coupled, self.part = relaxed, coupled, part
        self.evaluations = 1 + (2 - coupled) * relaxed
        self.eta = None if eta is None or tuning == "regression" else nn.Parameter(torch.tensor(float(eta)))
        initial = 1.0 if eta is None else float(eta)
        self.tuner = Regression(initial, every) if tuning == "regression" else Descent()

    def correction(self, x: Stacked, z: Stacked, sharpness: Tensor) -> tuple[Tensor, Stacked] | None:
        """r_ρ, `(*lead, *rows)`, and ∂r_ρ/∂z at z, given x = σ_λ(z) and `sharpness` = 1/λ. None without r_ρ."""
        return None

    def soft(self, z: Sites, log_temperature: Tensor | None = None) -> Stacked:
        """σ_λ(z), a point of the simplex; differentiable once in log λ, with ∂σ_λ/∂log λ = −J(σ_λ) z/λ."""
        log_t = self.log_temperature if log_temperature is None else log_temperature
        sharpness = torch.exp(-log_t.detach())

        def of_stack(site: Tensor) -> Tensor:
            scaled = site.clamp(min=-1e12) * sharpness  # a forbidden category has z = −inf, and 0 · inf is not 0
            x = softmax(scaled)
            if log_t.requires_grad and torch.is_grad_enabled():
                x = x - (log_t - log_t.detach()) * jacobian(x, scaled)
            return torch.where(site > -torch.inf, x, 0)  # no gradient through a forbidden category

        return sitewise(of_stack, z)

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Noise:
        return Noise(uniform(logits, generator), () if self.coupled else uniform(logits, generator))

    def _estimate(self, objective: Objective, logits: Sites, noise: Noise) -> Estimate:
        log_p = sitewise(log_probability, logits)
        p = sitewise(torch.exp, log_p)
        z = sitewise(perturbed, log_p, noise.u)
        index = Categories((site.max(-1).indices for site in z.stacks), p)
        score = scores(index, p)
        loss = objective.hard(index)
        train_weights(loss)
        loss = loss.detach()
        if self.part > 1:
            piece = objective.part(0, self.part)
            if piece is None:
                raise ValueError(
                    f"part={self.part} needs an objective whose data can be cut into {self.part} equal parts"
                )
            objective = piece
        again = z if self.coupled else sitewise(conditional_gumbel, log_p, index, noise.v)  # z̃
        return Estimate(loss, self.tuner(self, objective, Drawn(p, z, again, score, loss)))
