"""Some sites enumerated, the others left to another estimator.

    E_q f = E_{rest} F(rest),    F(rest) = Σ_c q(c) f(c, rest)

with c the configurations of the enumerated sites. The other estimator sees F, with q(c) among its weights: it gives
∂E F/∂φ of its own sites, and its weight gradient ∂E F/∂q(c) is carried on to the logits of the enumerated ones. All c
share the other estimator's samples, so that a network that gives all of its depths at once is called once. Like any
enumeration it asks for f at forbidden categories too, and gives it no weight; f must be finite there.
Cost: Π K over the enumerated sites, times that of the other. Unbiased where the other is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from estimators.base import Estimate, Estimator
from estimators.labels import parse
from estimators.noise import one_hot
from estimators.objective import Objective, Sites, Wrapper
from estimators.options import Count, Of


class PartlyExact(Estimator):
    """Enumeration of some sites, and another estimator for the rest.

    Args:
        sizes: K_l of each site.
        sites: positions of those to enumerate.
        of: the label of the estimator of the rest, such as "rloo[samples=4]".
        limit: refuse more configurations than this.

    Raises:
        ValueError: no such sites, none left for the other, or more configurations than `limit`.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        sites: tuple[int, ...] = (0,),
        of: Of = "rloo",
        limit: Count = 4096,
    ) -> None:
        super().__init__(sizes)
        self.sites = tuple(sites)
        if len(set(self.sites)) != len(self.sites) or not all(i in range(len(self.sizes)) for i in self.sites):
            raise ValueError(f"sites must be different positions in 0 … {len(self.sizes) - 1}, got {sites!r}")
        self.rest = tuple(i for i in range(len(self.sizes)) if i not in self.sites)
        if not self.sites or not self.rest:
            raise ValueError(
                f"partly_exact needs sites to enumerate and others to sample, got {sites!r} of {len(self.sizes)}"
            )
        self.configurations = math.prod(self.sizes[i] for i in self.sites)
        if self.configurations > limit:
            raise ValueError(f"partly_exact would enumerate {self.configurations:,} configurations, limit={limit:,}")
        self.inner = parse(of).make([self.sizes[i] for i in self.rest])
        self.unbiased, self.relaxed = self.inner.unbiased, self.inner.relaxed
        self.evaluations = self.configurations * self.inner.evaluations

    def anneal(self, progress: float) -> None:
        self.inner.anneal(progress)

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Any:
        self._stacked(logits)
        return self.inner.draw(tuple(logits[i] for i in self.rest), generator)

    def _estimate(self, objective: Objective, logits: Sites, noise: Any) -> Estimate:
        # float64, as in `exact`: q f − p Σ q f would lose the digits of f to a constant in it
        log_p = [torch.log_softmax(logits[i].double(), -1) for i in self.sites]
        grid = torch.cartesian_prod(*(torch.arange(self.sizes[i], device=log_p[0].device) for i in self.sites))
        grid = grid.view(self.configurations, len(self.sites))
        q = sum(site.movedim(-1, 0)[grid[:, n]] for n, site in enumerate(log_p))
        weight = torch.as_tensor(q).exp().requires_grad_()  # (C, *rows)
        mixture = _Mixture(self, objective, weight, grid)
        loss, grads = self.inner.estimate(mixture, tuple(logits[i] for i in self.rest), noise)
        slope = weight.detach() * (torch.zeros_like(weight) if weight.grad is None else weight.grad)
        found = dict(zip(self.rest, grads, strict=True))
        for n, (i, site) in enumerate(zip(self.sites, log_p, strict=True)):
            # ∂/∂φ of q(c) = Π p: what reaches category k, minus p_k of all
            reached = torch.zeros_like(site).movedim(-1, 0).index_add(0, grid[:, n], slope).movedim(0, -1)
            found[i] = reached - site.exp() * slope.sum(0).unsqueeze(-1)
        return Estimate(loss.to(logits[0].dtype), tuple(found[i] for i in range(len(self.sizes))))


class _Mixture(Wrapper):
    """F: the mean of f over the enumerated sites, as a function of the others."""

    def __init__(self, of: PartlyExact, objective: Objective, weight: Tensor, grid: Tensor) -> None:
        super().__init__(objective)
        self.of, self.weight, self.grid = of, weight, grid

    def around_another(self, piece: Objective) -> Wrapper:
        return _Mixture(self.of, piece, self.weight, self.grid)

    def __call__(self, sample: Sites, /) -> Tensor:
        return self._mean(self.inner(self._join(sample)))

    def hard(self, index: Sites, /) -> Tensor:
        return self._mean(self.inner.hard(self._whole(index)))

    def around(self, index: Sites, others: Sites, /) -> tuple[Tensor, Tensor]:
        loss, values = self.inner.around(self._whole(index), self._whole(others))
        return self._mean(loss), self._mean(values, fixed=True)

    def control(self, sample: Sites, /) -> Tensor:
        return self._mean(self.inner.control(self._join(sample)), fixed=True)

    def _whole(self, index: Sites) -> Sites:
        """`(C, *lead, *rows)`: as `_join`, of categories."""
        dims = index[0].dim()
        whole = {i: site.unsqueeze(0) for i, site in zip(self.of.rest, index, strict=True)}
        for n, i in enumerate(self.of.sites):
            whole[i] = self.grid[:, n].view(-1, *(1 for _ in range(dims)))
        return tuple(whole[i] for i in range(len(whole)))

    def _join(self, sample: Sites) -> Sites:
        """`(C, *lead, *rows, K)`: the enumerated sites vary along the first dimension alone, the others not at all."""
        dims = sample[0].dim()
        whole = {i: site.unsqueeze(0) for i, site in zip(self.of.rest, sample, strict=True)}
        for n, i in enumerate(self.of.sites):
            corner = one_hot(self.grid[:, n], self.of.sizes[i], sample[0].dtype)
            whole[i] = corner.view(-1, *(1 for _ in range(dims - 1)), self.of.sizes[i])
        return tuple(whole[i] for i in range(len(whole)))

    def _mean(self, value: Tensor, fixed: bool = False) -> Tensor:
        """Over c, from `(C, *lead, *rows)`."""
        weight = self.weight.detach() if fixed else self.weight
        rows = weight.dim() - 1
        lead = value.dim() - 1 - rows
        weight = weight.view(len(weight), *(1 for _ in range(lead)), *weight.shape[1:])
        possible = weight > 0  # a forbidden category counts for nothing, whatever f says of it
        return torch.where(possible, weight * torch.where(possible, value, 0), 0).sum(0)
