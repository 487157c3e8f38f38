"""One site at random, and another category there: bitflip-1, and the same for more than two categories.

A sample z; one of the L sites, I, is chosen uniformly in each row; with a = z_I, one of the other categories, b, is
chosen uniformly, and z' is z with b at site I.

    g_I = L (K_I − 1) p_a p_b / (p_a + p_b) · (f(z) − f(z')) (onehot(a) − onehot(b)),    g_l = 0 for l ≠ I

Given the other sites, the pair {a, b} comes up with probability (p_a + p_b) / (K_I − 1), with the same estimate in
either order. With F_k for f with k at site I, and J(p) v = p ⊙ (v − pᵀv),

    E[g_I / L] = Σ_{a<b} p_a p_b (F_a − F_b) (onehot(a) − onehot(b)) = J(p_I) F,    the gradient.

For two categories it is bitflip-1: the difference is exact, and the choice of the site is the only noise that is added.
Cost: 2 evaluations on the vertices, which an objective may share, see `Objective.around`. Unbiased.
Kunes et al. 2023, "Gradient estimation for binary latent variables via gradient variance clipping", arXiv:2208.06124.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from estimators.algebra import probabilities
from estimators.base import Estimate, Estimator, train_weights
from estimators.noise import Categories, one_hot, race, uniform
from estimators.objective import Objective, Sites
from estimators.sitewise import Stacked, layout_of, stacked


class Noise(NamedTuple):
    """Uniforms: u `(*rows, K_l)` per site gives z; v `(*rows, 2)` gives the site and the other category."""

    u: Sites
    v: Tensor


class Bitflip(Estimator):
    """One site at random, changed to another category.

    Args:
        sizes: K_l of each site.
    """

    unbiased = True
    evaluations = 2

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__(sizes)
        for number, at in enumerate(layout_of(self.sizes)):
            self.register_buffer(f"at{number}", torch.tensor(at), persistent=False)

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Noise:
        like = logits[0][..., :1].expand(*logits[0].shape[:-1], 2)
        return Noise(uniform(logits, generator), uniform([like], generator)[0])

    def _estimate(self, objective: Objective, logits: Sites, noise: Noise) -> Estimate:
        p = probabilities(logits)
        index = race(p, noise.u)
        chosen = (noise.v[..., 0] * len(self.sizes)).long().clamp_max(len(self.sizes) - 1)  # I, (*rows)
        mine, other = [], []
        for number, (z, q) in enumerate(zip(index.stacks, p.stacks, strict=True)):
            at: Tensor = getattr(self, f"at{number}")
            size = q.shape[-1]
            own = chosen.unsqueeze(-1) == at  # (*rows, n)
            step = 1 + (noise.v[..., 1:] * (size - 1)).long().clamp_max(max(size - 2, 0))
            b = (z + step) % size
            # a forbidden category has no weight, and f may not be finite there
            own = own & (q.gather(-1, b.unsqueeze(-1)).squeeze(-1) > 0) & (b != z)
            mine.append(own)
            other.append(torch.where(own, b, z))
        changed = Categories(other, stacked(logits))
        loss, value = objective.around(index, Categories((o.unsqueeze(0) for o in other), stacked(logits)))
        train_weights(loss)
        loss = loss.detach()
        difference = loss - value[0]
        grads = []
        for own, z, b, q in zip(mine, index.stacks, changed.stacks, p.stacks, strict=True):
            size = q.shape[-1]
            pa, pb = (q.gather(-1, k.unsqueeze(-1)).squeeze(-1) for k in (z, b))
            weight = torch.where(own, len(self.sizes) * (size - 1) * pa * pb / (pa + pb), 0)
            pair = one_hot(z, size, q.dtype) - one_hot(b, size, q.dtype)
            grads.append((weight * difference.unsqueeze(-1)).unsqueeze(-1) * pair)
        return Estimate(loss, Stacked(grads, p.layout))
