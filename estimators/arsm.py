"""ARSM: augment, REINFORCE, swap, merge.

    π_l ~ Dir(1_K),    z_l^{c⇌j} = argmin_i (log π_{l,i}^{c⇌j} − φ_{l,i})
    g_{l,c} = Σ_j (f_{c⇌j} − mean_m f_{m⇌j}) (1/K − π_{l,j})

The superscript c⇌j swaps the entries c and j of π_l in all sites at once, and f_{c⇌j} is f at the sample that results.
Every sample is still marginally distributed as q. K is the largest number of categories of any site; smaller sites are
padded with forbidden categories. `reference="one"` is ARS: a single reference category j, chosen uniformly, whose
factor is 1 − K π_{l,j}.
Cost: K(K − 1)/2 + 1 evaluations, or K with ARS, in one call. Unbiased. Yin, Yue, Zhou 2019, arXiv:1905.01413.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from estimators.base import Estimate, Estimator, train_weights
from estimators.noise import Categories, uniform
from estimators.objective import Objective, Sites
from estimators.options import Count
from estimators.sitewise import sitewise, stacked


class Noise(NamedTuple):
    """Uniforms u, `(*rows, K)` per site, give π. `which`, `()`, is the reference category of ARS."""

    u: Sites
    which: Tensor


class Arsm(Estimator):
    """ARSM and ARS.

    Args:
        sizes: K_l of each site.
        reference: "all" reference categories (ARSM) or "one" (ARS).
        limit: the largest allowed number of evaluations.

    Raises:
        ValueError: more evaluations would be needed than `limit`.
    """

    unbiased = True

    def __init__(self, sizes: Sequence[int], *, reference: Literal["all", "one"] = "all", limit: Count = 4096) -> None:
        super().__init__(sizes)
        k = max(self.sizes)
        self.reference = reference
        self.evaluations = k if reference == "one" else k * (k - 1) // 2 + 1
        if self.evaluations > limit:
            raise ValueError(
                f"arsm would evaluate {self.evaluations:,} swaps of {k} categories, but limit={limit:,}; "
                "raise the limit or use fewer categories" + (", or use reference=one" if reference == "all" else "")
            )

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Noise:
        k = max(self.sizes)
        draws = uniform(tuple(site[..., :1].expand(*site.shape[:-1], k) for site in logits), generator)
        which = torch.randint(k, (), generator=generator, device=logits[0].device if logits else None)
        return Noise(draws, which)

    def _estimate(self, objective: Objective, logits: Sites, noise: Noise) -> Estimate:
        k = max(self.sizes)
        every = torch.arange(k, device=logits[0].device)
        if self.reference == "one":
            first, second = every, noise.which.expand(k)
        else:  # the sample without a swap, and every pair
            i, j = torch.triu_indices(k, k, 1, device=every.device)
            first, second = torch.cat([every[:1], i]), torch.cat([every[:1], j])
        # row s of `swapped` is 0 … K−1 with entries first[s] and second[s] exchanged
        swapped = every.expand(len(first), k)
        swapped = torch.where(
            every == first[:, None], second[:, None], torch.where(every == second[:, None], first[:, None], swapped)
        )

        def swaps(site: Tensor, u: Tensor) -> Tensor:
            log_e = torch.log(-torch.log(u))  # log π without its normalisation, which does not change the argmin
            padded = torch.nn.functional.pad(site, (0, k - site.shape[-1]), value=-torch.inf)
            taken = log_e[..., swapped].movedim(-2, 0)  # (swaps, *rows, n, K)
            return (padded - taken).argmax(-1)

        loss = objective.hard(Categories(sitewise(swaps, logits, noise.u).stacks, stacked(logits)))
        train_weights(loss, 1 / len(first))
        loss = loss.detach()
        if self.reference == "one":
            centred = (loss - loss.mean(0)).movedim(0, -1)  # (*rows, c)
        else:
            number = torch.zeros(k, k, dtype=torch.int64, device=every.device)
            number[first[1:], second[1:]] = number[second[1:], first[1:]] = torch.arange(
                1, len(first), device=every.device
            )
            table = loss[number]  # (c, j, *rows)
            centred = (table - table.mean(0)).movedim((0, 1), (-1, -2))  # (*rows, j, c)

        centred = centred.to(logits[0].dtype)  # the objective may have a higher precision

        def merged(site: Tensor, u: Tensor) -> Tensor:
            e = -torch.log(u)
            pi = e / e.sum(-1, keepdim=True)  # (*rows, n, K)
            if self.reference == "one":
                grad = centred.unsqueeze(-2) * (1 - k * pi.index_select(-1, noise.which.view(1)))
            else:
                grad = (1 / k - pi) @ centred
            # Forbidden and padded categories only receive noise of mean 0: it is dropped. So is the sum of the others,
            # which has mean 0 too.
            grad, possible = grad[..., : site.shape[-1]], site > -torch.inf
            mean = (grad * possible).sum(-1, keepdim=True) / possible.sum(-1, keepdim=True)
            return torch.where(possible, grad - mean, 0)

        return Estimate(loss.mean(0), sitewise(merged, logits, noise.u))
