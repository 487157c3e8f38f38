"""The exact gradient, by enumeration of every configuration. Used as the reference for all other estimators.

    ∂/∂φ_l E f = Σ_z q(z) f(z) (z_l − p_l)

Cost: Π_l K_l evaluations. Unbiased, with no variance; weights receive Σ_z q(z) ∂f(z)/∂w.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from estimators.base import Estimate, Estimator, train_weights
from estimators.objective import Objective, Sites
from estimators.options import Count


class Exact(Estimator):
    """The exact gradient by enumeration, with `chunk` configurations per call of the objective.

    Args:
        sizes: K_l of each site.
        limit: the largest allowed number of configurations.
        chunk: configurations evaluated at once; memory grows with it.

    Raises:
        ValueError: Π_l K_l exceeds `limit`.
    """

    unbiased = True

    def __init__(self, sizes: Sequence[int], *, limit: Count = 4096, chunk: Count = 64) -> None:
        super().__init__(sizes)
        self.evaluations = math.prod(self.sizes)
        self.chunk = chunk
        if self.evaluations > limit:
            count = f"{self.evaluations:,}" if self.evaluations < 10**9 else f"1e{math.log10(self.evaluations):.0f}"
            raise ValueError(
                f"exact would enumerate {count} configurations of {len(self.sizes)} sites, but limit={limit:,}; "
                "raise the limit, use fewer categories or use another estimator"
            )

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> tuple[()]:
        return ()

    def _estimate(self, objective: Objective, logits: Sites, noise: tuple[()]) -> Estimate:
        rows = logits[0].shape[:-1]
        # float64: a large constant in f would otherwise cost digits in Σ q f z − p Σ q f
        log_p = [torch.log_softmax(site.double(), -1) for site in logits]
        likeliest = [site.argmax(-1) for site in logits]
        loss = log_p[0].new_zeros(rows)
        grads = [torch.zeros_like(lp) for lp in log_p]
        for start in range(0, self.evaluations, self.chunk):
            flat = torch.arange(start, min(start + self.chunk, self.evaluations), device=loss.device)
            categories = self._unravel(flat)
            chosen = [lp.movedim(-1, 0)[c] for lp, c in zip(log_p, categories, strict=True)]
            weight = sum(chosen, loss.new_zeros(())).exp()
            # f need not be finite at a forbidden configuration, which has weight 0: the likeliest one is evaluated
            # instead
            index = tuple(
                torch.where(lp == -torch.inf, best, c.view(-1, *(1 for _ in rows)))
                for lp, best, c in zip(chosen, likeliest, categories, strict=True)
            )
            value = objective.hard(index)
            train_weights(value, weight)
            mass = weight * value.detach()
            loss = loss + mass.sum(0)
            for grad, c in zip(grads, categories, strict=True):
                grad.movedim(-1, 0).index_add_(0, c, mass)
        centred = (g - lp.exp() * loss.unsqueeze(-1) for g, lp in zip(grads, log_p, strict=True))
        return Estimate(loss.to(logits[0].dtype), tuple(centred))

    def _unravel(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """The category `(chunk,)` of each site from configuration numbers; the first site varies slowest."""
        digits = []
        for size in reversed(self.sizes):
            digits.append(flat % size)
            flat = flat // size
        return digits[::-1]
