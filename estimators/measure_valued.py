"""Measure-valued (weak) derivatives with common random numbers: every category of every site, the others held.

A sample z is drawn. F_{l,k} = f(z with k at site l), where all other sites are those of z.

    g_l = J(p_l) F_l,    g_{l,k} = p_{l,k} (F_{l,k} − Σ_j p_{l,j} F_{l,j}),    J(p) v = p ⊙ (v − pᵀv)

∂q_l/∂φ_{l,k} = p_{l,k} (δ_k − q_l) is a difference of two measures: δ_k, which is always k, and q_l. So the gradient is
p_{l,k} times the difference of the means of f under them. Both means use the same other sites. The mean under q_l is an
exact sum over categories. So g_l is random only through the other sites.
Cost: 1 + Σ_l (K_l − 1) evaluations at hard samples. An objective may compute their common part once, see
`Objective.around`. Unbiased.
Mohamed, Rosca, Figurnov, Mnih 2020, arXiv:1906.10652, section 6; for categoricals the same as local expectation
gradients, Titsias, Lázaro-Gredilla 2015, arXiv:1503.01494.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from estimators.algebra import jacobian, probabilities
from estimators.base import Estimate, Estimator, train_weights
from estimators.noise import Categories, race
from estimators.objective import Objective, Sites
from estimators.sitewise import Stacked, layout_of, stacked


class MeasureValued(Estimator):
    """Measure-valued derivatives.

    Args:
        sizes: K_l of each site.
    """

    unbiased = True

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__(sizes)
        self.evaluations = 1 + sum(size - 1 for size in self.sizes)
        counts = [(self.sizes[at[0]] - 1, len(at)) for at in layout_of(self.sizes)]
        most = sum(others * n for others, n in counts)
        start = 0
        self.spans = []
        for number, (others, n) in enumerate(counts):
            # how far each site of this stack is moved on in each further sample, modulo K
            shift = torch.zeros(most, n, dtype=torch.int64)
            for site in range(n):
                first = start + site * others
                shift[first : first + others, site] = torch.arange(1, others + 1)
            self.register_buffer(f"shift{number}", shift, persistent=False)
            self.spans.append((start, start + n * others))
            start += n * others

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        p = probabilities(logits)
        index = race(p, noise)
        if self.evaluations == 1:  # nothing to choose
            loss = objective.hard(index)
            train_weights(loss)
            return Estimate(loss.detach(), Stacked(map(torch.zeros_like, p.stacks), p.layout))
        moved = [self._moved(number, z, q) for number, (z, q) in enumerate(zip(index.stacks, p.stacks, strict=True))]
        loss, values = objective.around(index, Categories(moved, stacked(logits)))
        train_weights(loss)
        loss = loss.detach()
        change = values - loss
        parts = zip(self.spans, index.stacks, p.stacks, strict=True)
        return Estimate(loss, Stacked((self._of_stack(change[a:b], z, q) for (a, b), z, q in parts), p.layout))

    def _moved(self, number: int, z: Tensor, p: Tensor) -> Tensor:
        """The categories of the sites of a stack in every further sample, `(Σ_l (K_l − 1), *rows, n)`."""
        shift: Tensor = getattr(self, f"shift{number}")
        moved = (z + shift.view(len(shift), *(1,) * (z.dim() - 1), -1)) % p.shape[-1]
        # a forbidden category has no weight, and f may not be finite there: such a sample is z again
        weight = p.expand(*moved.shape, p.shape[-1]).gather(-1, moved.unsqueeze(-1)).squeeze(-1)
        return torch.where(weight > 0, moved, z)

    @staticmethod
    def _of_stack(change: Tensor, z: Tensor, p: Tensor) -> Tensor:
        """g of the n sites of a stack, `(*rows, n, K)`, from F − f(z) of their further samples, `(n (K−1), *rows)`."""
        n, size = p.shape[-2:]
        if size == 1:
            return torch.zeros_like(p)
        by_shift = change.unflatten(0, (n, size - 1)).movedim((0, 1), (-2, -1))  # (*rows, n, K − 1)
        by_shift = torch.cat([torch.zeros_like(by_shift[..., :1]), by_shift], -1)
        shift = (torch.arange(size, device=z.device) - z.unsqueeze(-1)) % size
        return jacobian(p, by_shift.gather(-1, shift))
