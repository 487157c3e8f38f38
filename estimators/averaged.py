"""Any estimator, averaged over n draws: the same mean, and 1/n of its variance.

    g = 1/n Σ_i g⁽ⁱ⁾

All draws are made in one call of the estimator, as further rows. So the objective gets them as one leading dimension.
The estimator's own parameters and the weights train on the mean over the draws.
Cost: n times that of the estimator. Unbiased if the estimator is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from estimators.base import Estimate, Estimator
from estimators.labels import parse
from estimators.objective import Objective, Sites, Wrapper
from estimators.options import Count, Of


class Averaged(Estimator):
    """The mean of independent draws of another estimator.

    Args:
        sizes: K_l of each site.
        of: label of the other estimator, e.g. "rloo[samples=4]".
        samples: n, the number of draws.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        of: Of = "straight_through",
        samples: Count = 4,
    ) -> None:
        super().__init__(sizes)
        self.inner = parse(of).make(self.sizes)
        self.samples = samples
        self.unbiased, self.relaxed = self.inner.unbiased, self.inner.relaxed
        self.evaluations = samples * self.inner.evaluations

    def anneal(self, progress: float) -> None:
        self.inner.anneal(progress)

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Any:
        return self.inner.draw(self._rows(logits), generator)

    def _estimate(self, objective: Objective, logits: Sites, noise: Any) -> Estimate:
        loss, grads = self.inner.estimate(_Shared(objective, self.samples), self._rows(logits), noise)
        return Estimate(loss.mean(0), tuple(grad.mean(0) for grad in grads))

    def _rows(self, logits: Sites) -> Sites:
        return tuple(site.expand(self.samples, *site.shape) for site in logits)


class _Shared(Wrapper):
    """An objective whose weights receive 1/n of the gradient of each of n rows; its samples receive it unscaled."""

    def __init__(self, inner: Objective, n: int) -> None:
        super().__init__(inner)
        self.n = n

    def around_another(self, piece: Objective) -> Wrapper:
        return _Shared(piece, self.n)

    def __call__(self, sample: Sites, /) -> Tensor:
        return _scale(self.inner(tuple(_scale(site, self.n) for site in sample)), 1 / self.n)

    def hard(self, index: Sites, /) -> Tensor:
        return _scale(self.inner.hard(index), 1 / self.n)

    def around(self, index: Sites, others: Sites, /) -> tuple[Tensor, Tensor]:
        loss, values = self.inner.around(index, others)
        return _scale(loss, 1 / self.n), values


def _scale(x: Tensor, by: float) -> Tensor:
    """x unchanged; its gradient is multiplied by `by` in the backward pass."""
    return x.detach() + by * (x - x.detach())
