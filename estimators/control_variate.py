"""What REBAR and RELAX share: a control variate c on the Gumbel-perturbed log-probabilities.

    z = log p − log(−log u),  b = argmax z,  z̃ ~ p(z | b)
    g = [f(b) − c(z̃)] (b − p) + ∂_φ c(z) − ∂_φ c(z̃),    c(z) = η [f(σ_λ(z)) + r_ρ(z)],    σ_λ(z) = softmax(z / λ)

Unbiased for every c: E[c(z̃)(b − p)] + E[∂_φ c(z̃)] = ∂_φ E[c(z̃)] = ∂_φ E[c(z)] = E[∂_φ c(z)]. z̃ stays attached to φ.
The last step needs a c whose slope is all there is to its dependence on z. An f with an argmax inside has jumps that no
slope shows, and E[∂_φ c(z)] would miss them: where f has no slope in some site it is left out of c, whatever c is then.

The noise v of z̃ is drawn by itself, or it is the one with which z̃ = z, held fixed (`coupled`; Tucker et al., App. C):

    v_b = exp(−e^{−z_b}),    v_i = exp(−p_i (e^{−z_i} − e^{−z_b}))

which is distributed in the same way given b, so that nothing changes in expectation. Then ∂z̃_i/∂log p_i is
1 − e^{z_i − z_b} where ∂z_i/∂log p_i = 1, and c has one value and one slope: one evaluation does for both terms,

    g = [f(b) − c(z)] (b − p) + J (∂c/∂z ⊙ e^{z − z_b}),    J v = v − p Σ v

What c depends on is tuned on the variance, E‖g‖² up to a constant, in one of two ways.

    tuning = "descent"      η, λ and ρ follow ∂‖g‖²/∂θ, through ∂c/∂z: f is differentiated twice at every step
    tuning = "regression"   of coupled noise. With a = f(b)(b − p) and g = a − η d, η is the regression Σ aᵀd / Σ dᵀd
                            over earlier steps. log λ follows the difference quotient of ‖a − η d‖² at λ e^{±δ}, one
                            more evaluation at every `every`-th step, the signs in turn; ρ follows ∂‖g‖²/∂ρ, which needs
                            no second derivative of f. One graph of f is alive at a time, and none is differentiated
                            twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from estimators.algebra import dot, jacobian, log_probability, norm_sq, scores, softmax, through_softmax
from estimators.base import Estimate, Estimator, train_weights
from estimators.noise import Categories, conditional_gumbel, perturbed, uniform
from estimators.objective import Objective, Sites
from estimators.sitewise import Stacked, sitewise
from estimators.slopes import slopes_of

Tuning = Literal["descent", "regression"]

DECAY = 0.99
"""Of the sums of the regression, per step: in the long run their errors are those of about a hundred steps."""
PRIOR = 10
"""Steps for which the initial η counts in them: that of one step alone may be anything."""
STEP = 0.2
"""δ: a difference quotient of this step in log λ is within some per cent of the slope, and far above rounding."""


def kept(z: Tensor) -> Tensor:
    """e^{z̃_i − z̃_b} = 1 − ∂z̃_i/∂log p_i, of a draw given its winner b."""
    return torch.exp(z - z.amax(-1, keepdim=True))


def _to_logits(p: Tensor, slope: Tensor) -> Tensor:
    """∂/∂φ from ∂/∂log p."""
    return torch.addcmul(slope, p, slope.sum(-1, keepdim=True), value=-1)


class Noise(NamedTuple):
    """Uniforms `(*rows, K_l)` per site: u gives z, and v gives z̃ given b; no v where z̃ is coupled to z."""

    u: Sites
    v: Sites


class ControlVariate(Estimator):
    """An estimator whose subclass may give r_ρ as `correction`.

    Args:
        sizes: K_l of each site.
        temperature: the initial λ, learned as log λ.
        eta: the initial η; None: 1, and not tuned by descent.
        relaxed: whether f(σ_λ(z)) is part of c.
        coupled: z̃ = z in value; else z̃ has noise of its own.
        tuning: "descent" or "regression".
        every: steps of the regression between two of λ.
        part: n: f(σ_λ(z)) is that of the first of n parts of the data, at an n-th of the cost; 1: of all.
    """

    unbiased = True
    cross: Tensor
    square: Tensor

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
        self.relaxed, self.coupled, self.tuning, self.every, self.part = relaxed, coupled, tuning, every, part
        self.evaluations = 1 + (2 - coupled) * relaxed
        self.eta = None if eta is None or tuning == "regression" else nn.Parameter(torch.tensor(float(eta)))
        self.steps = 0  # of the regression; a number, which nothing waits for
        if tuning == "regression":
            self.initial_eta = 1.0 if eta is None else float(eta)
            self.register_buffer("cross", torch.zeros(()))
            self.register_buffer("square", torch.zeros(()))

    def get_extra_state(self) -> Tensor:
        """The steps of the regression."""
        return torch.tensor(self.steps)

    def set_extra_state(self, state: Tensor) -> None:
        """Return to them."""
        self.steps = int(state)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.setdefault(f"{prefix}_extra_state", torch.tensor(0))  # of a run that began before there were any
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def correction(self, x: Stacked, z: Stacked, sharpness: Tensor) -> tuple[Tensor, Stacked] | None:
        """r_ρ, `(*lead, *rows)`, and ∂r_ρ/∂z at perturbed log-probabilities z, given x = σ_λ(z) and 1/λ; or None."""
        return None

    def soft(self, z: Sites, log_temperature: Tensor | None = None) -> Stacked:
        """σ_λ(z), in the simplex; differentiable once in log λ, with ∂σ_λ/∂log λ = −J(σ_λ) z/λ."""
        log_t = self.log_temperature if log_temperature is None else log_temperature
        sharpness = torch.exp(-log_t.detach())

        def of_stack(site: Tensor) -> Tensor:
            scaled = site.clamp(min=-1e12) * sharpness  # a forbidden category has z = −inf, and 0 · inf is not 0
            x = softmax(scaled)
            if log_t.requires_grad and torch.is_grad_enabled():
                x = x - (log_t - log_t.detach()) * jacobian(x, scaled)
            return torch.where(site > -torch.inf, x, 0)  # f need not have a slope there

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
                raise ValueError(f"part={self.part} needs an objective whose data can be cut into so many equal parts")
            objective = piece
        if self.tuning == "regression":
            return Estimate(loss, self._regressed(objective, p, z, loss, score))

        again = z if self.coupled else sitewise(conditional_gumbel, log_p, index, noise.v)  # z̃
        # one call for both, whose graphs the fit needs together
        points = sitewise(lambda *each: torch.stack(each), *([z] if self.coupled else [z, again]))
        c = self._slope(objective, points)
        if c is None:
            return Estimate(loss, sitewise(lambda s: loss[..., None, None] * s, score))
        value, slope = c
        advantage = (loss - value[-1])[..., None, None]
        found = []
        for s, q, x, v in zip(score.stacks, p.stacks, again.stacks, slope, strict=True):
            each = v.unbind()
            found.append(torch.addcmul(_to_logits(q, torch.addcmul(each[0], kept(x) - 1, each[-1])), advantage, s))
        grads = Stacked(found, score.layout)
        if self.training:
            self._fit(norm_sq(grads))
        return Estimate(loss, grads)

    def _slope(self, objective: Objective, z: Stacked) -> tuple[Tensor, Sites] | None:
        """c and ∂c/∂z at points `(n, *rows, K_l)`, differentiable in the parameters of c while in training mode.

        f is no part of c where it has no slope in some site: None where nothing else is.
        """
        with torch.set_grad_enabled(self.training):
            x, sharpness = self.soft(z), torch.exp(-self.log_temperature)
            c = self.correction(x, z, sharpness)
        if self.relaxed:
            value, slopes, whole = slopes_of(self, objective, x, self.training)
            slopes = sitewise(lambda q, v: through_softmax(q, v) * sharpness, x, slopes)
            if whole:
                c = (value, slopes) if c is None else (c[0] + value, sitewise(torch.add, c[1], slopes))
        if c is None:
            return None
        if self.eta is not None:
            c = (self.eta * c[0], sitewise(lambda v: self.eta * v, c[1]))
        return (c[0], c[1].stacks) if self.training else (c[0].detach(), [v.detach() for v in c[1].stacks])

    @torch.no_grad()
    def _regress(self, plain: Stacked, d: Stacked) -> None:
        """Put a step into the sums, which begin as `PRIOR` steps whose best η was the initial one."""
        cross, square = (each.mean().to(self.square.dtype) for each in (dot(plain, d), norm_sq(d)))
        begun, weight = self.square > 0, PRIOR * (1 - DECAY)
        self.cross.copy_(torch.where(begun, self.cross, weight * self.initial_eta * square)).lerp_(cross, 1 - DECAY)
        self.square.copy_(torch.where(begun, self.square, weight * square)).lerp_(square, 1 - DECAY)

    def _regressed(self, objective: Objective, p: Stacked, z: Stacked, loss: Tensor, score: Stacked) -> Stacked:
        """g = a − η d, η of earlier steps, with coupled noise."""
        plain = sitewise(lambda s: loss[..., None, None] * s, score)  # a
        held = [kept(x) for x in z.stacks]

        def difference(value: Tensor, slope: Stacked) -> Stacked:
            """c(z) (b − p) − J (∂c/∂z ⊙ e^{z − z_b})."""
            pairs = zip(score.stacks, p.stacks, slope.stacks, held, strict=True)
            return Stacked((value[..., None, None] * s - _to_logits(q, v * k) for s, q, v, k in pairs), z.layout)

        def whole(log_temperature: Tensor, fit: bool) -> Stacked:
            """d, differentiable in ρ where it is fitted."""
            sharpness = torch.exp(-log_temperature)
            with torch.no_grad():
                x = self.soft(z, log_temperature)
            value, slopes, smooth = slopes_of(self, objective, x, False)
            if not smooth:  # nothing is known of ∂c/∂φ, and c is only what is learned
                value, slopes = torch.zeros_like(value), sitewise(torch.zeros_like, slopes)
            relaxed = difference(value, sitewise(lambda q, v: through_softmax(q.detach(), v) * sharpness, x, slopes))
            with torch.set_grad_enabled(fit):
                learned = self.correction(sitewise(torch.detach, x), z, sharpness)
                return relaxed if learned is None else sitewise(torch.add, relaxed, difference(*learned))

        eta = torch.where(self.square > 0, self.cross / self.square, self.initial_eta)

        def estimate(d: Stacked) -> Stacked:
            return sitewise(lambda a, v: a - eta * v, plain, d)

        log_temperature = self.log_temperature.detach()
        d = whole(log_temperature, self.training)
        grads = estimate(d)
        if self.training:
            self._regress(plain, d)
            self.steps += 1
            squared = norm_sq(grads)
            if squared.requires_grad:
                self._fit(squared)
            if self.steps % self.every == 0 and self.log_temperature.requires_grad:
                step = STEP if self.steps // self.every % 2 else -STEP
                other = estimate(whole(log_temperature + step, False))
                with torch.no_grad():
                    slope_of_log = ((norm_sq(other) - norm_sq(grads)).mean() / step).to(log_temperature.dtype)
                    before = self.log_temperature.grad
                    self.log_temperature.grad = slope_of_log if before is None else before + slope_of_log
        return grads
