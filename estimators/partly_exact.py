"""Some sites are enumerated, and another estimator samples the rest.

    E_q f = E_{rest} F(rest),    F(rest) = Σ_c q(c) f(c, rest)

where c runs over the configurations of the enumerated sites. The other estimator is applied to F and treats q(c) as
weights of F. It estimates ∂E F/∂φ for its own sites; its weight gradient ∂E F/∂q(c) is backpropagated to the logits of
the enumerated sites. All c share the samples of the other estimator. So if c is the depth of a network that computes
all depths at once, the network is called once. f is evaluated at forbidden categories too, with weight 0, and must be
finite there.
Cost: Π K over the enumerated sites, times the cost of the other estimator. Unbiased if the other is.
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
        sites: positions of the sites to enumerate.
        of: label of the estimator for the rest, e.g. "rloo[samples=4]".
        limit: the largest allowed number of configurations.

    Raises:
        ValueError: invalid positions, no site to enumerate or none left to sample, or more configurations than `limit`.
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
                f"partly_exact needs sites to enumerate and sites to sample, got {sites!r} of {len(self.sizes)}"
            )
        self.configurations = math.prod(self.sizes[i] for i in self.sites)
        if self.configurations > limit:
            raise ValueError(
                f"partly_exact would enumerate {self.configurations:,} configurations, but limit={limit:,}"
            )
        self.inner = parse(of).make([self.sizes[i] for i in self.rest])
        self.unbiased, self.relaxed = self.inner.unbiased, self.inner.relaxed
        self.evaluations = self.configurations * self.inner.evaluations

    def anneal(self, progress: float) -> None:
        self.inner.anneal(progress)

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Any:
        self._stacked(logits)
        return self.inner.draw(tuple(logits[i] for i in self.rest), generator)

    def _estimate(self, objective: Objective, logits: Sites, noise: Any) -> Estimate:
        # float64, as in `exact`: a large constant in f would otherwise cost digits in q f − p Σ q f
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
            # ∂/∂φ of q(c) = Π p: the sum over all c with category k, minus p_k times the sum over all c
            reached = torch.zeros_like(site).movedim(-1, 0).index_add(0, grid[:, n], slope).movedim(0, -1)
            found[i] = reached - site.exp() * slope.sum(0).unsqueeze(-1)
        return Estimate(loss.to(logits[0].dtype), tuple(found[i] for i in range(len(self.sizes))))


class _Mixture(Wrapper):
    """F: the mean of f over the enumerated sites, as a function of the other sites."""

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
        """As `_join`, for categories: `(C, *lead, *rows)`."""
        dims = index[0].dim()
        whole = {i: site.unsqueeze(0) for i, site in zip(self.of.rest, index, strict=True)}
        for n, i in enumerate(self.of.sites):
            whole[i] = self.grid[:, n].view(-1, *(1 for _ in range(dims)))
        return tuple(whole[i] for i in range(len(whole)))

    def _join(self, sample: Sites) -> Sites:
        """All sites, `(C, *lead, *rows, K)`: only the enumerated sites vary along the first dimension."""
        dims = sample[0].dim()
        whole = {i: site.unsqueeze(0) for i, site in zip(self.of.rest, sample, strict=True)}
        for n, i in enumerate(self.of.sites):
            corner = one_hot(self.grid[:, n], self.of.sizes[i], sample[0].dtype)
            whole[i] = corner.view(-1, *(1 for _ in range(dims - 1)), self.of.sizes[i])
        return tuple(whole[i] for i in range(len(whole)))

    def _mean(self, value: Tensor, fixed: bool = False) -> Tensor:
        """The mean over c under q, from values `(C, *lead, *rows)`."""
        weight = self.weight.detach() if fixed else self.weight
        rows = weight.dim() - 1
        lead = value.dim() - 1 - rows
        weight = weight.view(len(weight), *(1 for _ in range(lead)), *weight.shape[1:])
        possible = weight > 0  # 0 · inf would be NaN
        return torch.where(possible, weight * torch.where(possible, value, 0), 0).sum(0)
