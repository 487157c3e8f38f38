"""One site at random, and another category there: bitflip-1, and the same for more than two categories.

A sample z is drawn. I is chosen uniformly in each row among the L sites with more than one category. a = z_I is its
category, and b is chosen uniformly among its other categories. z' is z with b at site I.

    g_I = L (K_I − 1) p_a p_b / (p_a + p_b) · (f(z) − f(z')) (onehot(a) − onehot(b)),    g_l = 0 for l ≠ I

Given the other sites, the pair {a, b} is drawn with probability (p_a + p_b) / (K_I − 1). The estimate is the same in
either order. Let F_k be f with k at site I, and J(p) v = p ⊙ (v − pᵀv). Then

    E[g_I / L] = Σ_{a<b} p_a p_b (F_a − F_b) (onehot(a) − onehot(b)) = J(p_I) F,    the gradient.

For two categories it is bitflip-1: the difference is exact, and the choice of the site is the only noise that is added.
Cost: 2 evaluations at hard samples. An objective may compute their common part once, see `Objective.around`. Unbiased.
Kunes et al. 2023, "Gradient estimation for binary latent variables via gradient variance clipping", arXiv:2208.06124.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from estimators.algebra import probabilities
from estimators.base import Estimate, Estimator, train_weights
from estimators.noise import Categories, one_hot, race, uniform
from estimators.objective import Objective, Sites
from estimators.sitewise import Stacked, stacked, stacks


class Noise(NamedTuple):
    """Uniforms `(*rows, K_l)` per site. u gives z. The site is the one where the first number of v is the largest, and
    the last number of v there gives the other category."""

    u: Sites
    v: Sites


class Bitflip(Estimator):
    """One site at random, changed to another category.

    Args:
        sizes: K_l of each site.
    """

    unbiased = True
    evaluations = 2

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Noise:
        return Noise(uniform(logits, generator), uniform(logits, generator))

    def _estimate(self, objective: Objective, logits: Sites, noise: Noise) -> Estimate:
        p = probabilities(logits)
        index = race(p, noise.u)
        v = stacks(noise.v, p.layout)
        # among the stacked sites; one of a single category has nothing to change
        keys = [stack[..., 0] if stack.shape[-1] > 1 else torch.zeros_like(stack[..., 0]) for stack in v]
        chosen = torch.cat(keys, -1).argmax(-1, keepdim=True)
        mine, other, start = [], [], 0
        for z, q, mine_v in zip(index.stacks, p.stacks, v, strict=True):
            n, size = q.shape[-2:]
            step = 1 + (mine_v[..., -1] * (size - 1)).long().clamp_max(max(size - 2, 0))
            b = (z + step) % size
            # a forbidden category has no weight, and f may not be finite there; of one category there is no other
            possible = (q.gather(-1, b.unsqueeze(-1)).squeeze(-1) > 0) & (b != z)
            mine.append((chosen == torch.arange(start, start + n, device=z.device)) & possible)
            other.append(torch.where(mine[-1], b, z))
            start += n
        changed = Categories((stack.unsqueeze(0) for stack in other), stacked(logits))
        loss, value = objective.around(index, changed)
        train_weights(loss)
        loss = loss.detach()
        difference = loss - value[0]
        parts = zip(mine, index.stacks, other, p.stacks, strict=True)
        return Estimate(loss, Stacked((self._of_stack(difference, *part) for part in parts), p.layout))

    def _of_stack(self, difference: Tensor, mine: Tensor, a: Tensor, b: Tensor, p: Tensor) -> Tensor:
        """g of the sites of a stack, `(*rows, n, K)`, from f(z) − f(z') `(*rows)`; `mine` says where the change is."""
        size = p.shape[-1]
        pa, pb = (p.gather(-1, k.unsqueeze(-1)).squeeze(-1) for k in (a, b))
        sites = sum(k > 1 for k in self.sizes)
        weight = torch.where(mine, sites * (size - 1) * pa * pb / (pa + pb), 0)
        pair = one_hot(a, size, p.dtype) - one_hot(b, size, p.dtype)
        return (weight * difference.unsqueeze(-1)).unsqueeze(-1) * pair
