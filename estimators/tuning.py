"""Two ways to tune the control variate c of `control_variate`, each with its estimate g. Symbols as there.

Both minimise the variance, which is E‖g‖² up to a constant.

    descent      Gradient descent of η, λ and ρ on ‖g‖². This goes through ∂c/∂z, so f is differentiated twice at every
                 step.
    regression   Needs coupled noise. With a = f(b)(b − p) and g = a − η d, η is the regression coefficient
                 Σ aᵀd / Σ dᵀd over earlier steps. The gradient in log λ is the difference quotient of ‖a − η d‖² at
                 λ e^{±δ}; it costs one more evaluation at every `every`-th step, with alternating sign. The gradient in
                 ρ is ∂‖g‖²/∂ρ, which needs no second derivative of f. Only one graph of f exists at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from estimators.algebra import dot, norm_sq, through_softmax
from estimators.objective import Objective
from estimators.sitewise import Stacked, sitewise
from estimators.slopes import slopes_of

if TYPE_CHECKING:
    from estimators.control_variate import ControlVariate

DECAY = 0.99
"""Decay of the regression's sums, per step. They average over about a hundred steps in the long run."""
PRIOR = 10
"""Weight of the initial η in these sums, in steps. The η of a single step would be too noisy."""
STEP = 0.2
"""δ, the step in log λ. Its difference quotient is within a few per cent of the slope and far above rounding."""


class Drawn(NamedTuple):
    """One draw: p, z, z̃ (`again`) and b − p (`score`) per site, and f(b) (`loss`), `(*rows)`. Coupled: z̃ is z."""

    p: Stacked
    z: Stacked
    again: Stacked
    score: Stacked
    loss: Tensor

    @property
    def plain(self) -> Stacked:
        """a = f(b)(b − p)."""
        return sitewise(lambda s: self.loss[..., None, None] * s, self.score)


class Descent(nn.Module):
    """Tunes η, λ and ρ by gradient descent on ‖g‖²."""

    def forward(self, of: ControlVariate, objective: Objective, drawn: Drawn) -> Stacked:
        """g. In training mode adds the gradient of ‖g‖² to the `.grad` of the parameters of c."""
        p, z, again, score, loss = drawn
        # z and z̃ in one call, because the fit needs both graphs at once
        points = sitewise(lambda *each: torch.stack(each), *([z] if of.coupled else [z, again]))
        c = self._slope(of, objective, points)
        if c is None:
            return drawn.plain
        value, slope = c
        advantage = (loss - value[-1])[..., None, None]
        found = []
        for s, q, x, v in zip(score.stacks, p.stacks, again.stacks, slope, strict=True):
            each = v.unbind()
            found.append(torch.addcmul(_to_logits(q, torch.addcmul(each[0], _kept(x) - 1, each[-1])), advantage, s))
        grads = Stacked(found, score.layout)
        if of.training:
            of._fit(norm_sq(grads))
        return grads

    def _slope(self, of: ControlVariate, objective: Objective, z: Stacked) -> tuple[Tensor, Sequence[Tensor]] | None:
        """c and ∂c/∂z at points `(n, *rows, K_l)`, differentiable in the parameters of c in training mode.

        f is left out of c if it has no slope in some site. None if c then has no term.
        """
        with torch.set_grad_enabled(of.training):
            x, sharpness = of.soft(z), torch.exp(-of.log_temperature)
            c = of.correction(x, z, sharpness)
        if of.relaxed:
            value, slopes, whole = slopes_of(of, objective, x, of.training)
            slopes = sitewise(lambda q, v: through_softmax(q, v) * sharpness, x, slopes)
            if whole:
                c = (value, slopes) if c is None else (c[0] + value, sitewise(torch.add, c[1], slopes))
        if c is None:
            return None
        if of.eta is not None:
            c = (of.eta * c[0], sitewise(lambda v: of.eta * v, c[1]))
        return (c[0], c[1].stacks) if of.training else (c[0].detach(), [v.detach() for v in c[1].stacks])


class Regression(nn.Module):
    """Tunes η by regression over earlier steps, with coupled noise and the relaxed objective.

    Args:
        eta: the initial η.
        every: λ is updated at every `every`-th step.
    """

    cross: Tensor
    square: Tensor

    def __init__(self, eta: float, every: int) -> None:
        super().__init__()
        self.initial, self.every = eta, every
        self.steps = 0  # a Python number: reading a tensor would wait for the device
        self.register_buffer("cross", torch.zeros(()))
        self.register_buffer("square", torch.zeros(()))

    def get_extra_state(self) -> Tensor:
        """The number of steps, for the state dict."""
        return torch.tensor(self.steps)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the number of steps."""
        self.steps = int(state)

    def forward(self, of: ControlVariate, objective: Objective, drawn: Drawn) -> Stacked:
        """g = a − η d, with η from earlier steps."""
        plain, held = drawn.plain, [_kept(x) for x in drawn.z.stacks]
        eta = torch.where(self.square > 0, self.cross / self.square, self.initial)

        def estimate(d: Stacked) -> Stacked:
            return sitewise(lambda a, v: a - eta * v, plain, d)

        log_temperature = of.log_temperature.detach()
        d = self._difference(of, objective, drawn, held, log_temperature, of.training)
        grads = estimate(d)
        if of.training:
            self._add(plain, d)
            self.steps += 1
            squared = norm_sq(grads)
            if squared.requires_grad:
                of._fit(squared)
            if self.steps % self.every == 0 and of.log_temperature.requires_grad:
                step = STEP if self.steps // self.every % 2 else -STEP
                other = estimate(self._difference(of, objective, drawn, held, log_temperature + step, False))
                with torch.no_grad():
                    quotient = ((norm_sq(other) - norm_sq(grads)).mean() / step).to(log_temperature.dtype)
                    before = of.log_temperature.grad
                    of.log_temperature.grad = quotient if before is None else before + quotient
        return grads

    def _difference(
        self,
        of: ControlVariate,
        objective: Objective,
        drawn: Drawn,
        held: Sequence[Tensor],
        log_temperature: Tensor,
        fit: bool,
    ) -> Stacked:
        """d at a temperature, differentiable in ρ if `fit`. `held` is e^{z − z_b} of each stack."""
        p, z, _, score, _ = drawn

        def difference(value: Tensor, slope: Stacked) -> Stacked:
            """c(z) (b − p) − J (∂c/∂z ⊙ e^{z − z_b})."""
            pairs = zip(score.stacks, p.stacks, slope.stacks, held, strict=True)
            return Stacked((value[..., None, None] * s - _to_logits(q, v * k) for s, q, v, k in pairs), z.layout)

        sharpness = torch.exp(-log_temperature)
        with torch.no_grad():
            x = of.soft(z, log_temperature)
        value, slopes, whole = slopes_of(of, objective, x, False)
        if not whole:  # f has no slope in some site: c is r_ρ alone
            value, slopes = torch.zeros_like(value), sitewise(torch.zeros_like, slopes)
        relaxed = difference(value, sitewise(lambda q, v: through_softmax(q.detach(), v) * sharpness, x, slopes))
        with torch.set_grad_enabled(fit):
            learned = of.correction(sitewise(torch.detach, x), z, sharpness)
            return relaxed if learned is None else sitewise(torch.add, relaxed, difference(*learned))

    @torch.no_grad()
    def _add(self, plain: Stacked, d: Stacked) -> None:
        """Add a step to the sums, which start as if there had been `PRIOR` steps whose best η was the initial one."""
        cross, square = (each.mean().to(self.square.dtype) for each in (dot(plain, d), norm_sq(d)))
        begun, weight = self.square > 0, PRIOR * (1 - DECAY)
        self.cross.copy_(torch.where(begun, self.cross, weight * self.initial * square)).lerp_(cross, 1 - DECAY)
        self.square.copy_(torch.where(begun, self.square, weight * square)).lerp_(square, 1 - DECAY)


def _kept(z: Tensor) -> Tensor:
    """e^{z̃_i − z̃_b} = 1 − ∂z̃_i/∂log p_i, for a draw given its winner b."""
    return torch.exp(z - z.amax(-1, keepdim=True))


def _to_logits(p: Tensor, slope: Tensor) -> Tensor:
    """The gradient in φ from the gradient in log p."""
    return torch.addcmul(slope, p, slope.sum(-1, keepdim=True), value=-1)
