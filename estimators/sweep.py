"""A sweep over the sites: each is drawn again with all others held fixed. The control variate is a slope and a table.

Weights train on one sample z. For each site l there are S further draws of that site alone, c_1 … c_S ~ q_l. With
c_0 = z_l, f_s = f(z with c_s at site l) and a control variate h_l(k) for category k of that site,

    g_l = 1/S Σ_{s=0…S} (d_s − d̄) onehot(c_s) + J(p_l) h_l,    d_s = f_s − h_l(c_s),    J(p) v = p ⊙ (v − pᵀv)

Given the other sites, c_0 … c_S are S + 1 independent draws from q_l. The first term is leave-one-out REINFORCE for
f − h_l, and the second is the gradient of E_{q_l} h_l. So g_l is unbiased for every h_l that does not depend on the
draws. The difference f_s − f_r only contains what site l changes: the other sites and the minibatch are the same.

    h_l(k) = α_l ∂f/∂x_{l,k}(p) + T_l(k)

x_{l,k} is the entry of the sample for category k. The slopes are taken at the mean p of q and on the same data, as in
MuProp. T_l and α_l are fitted to differences of f at *earlier* steps, see `regression`. With slopes=False, h_l = T_l,
and no derivative of f is needed.

With rate = ρ < 1, a coin of probability ρ decides for each site whether it is drawn again. The first term is then
multiplied by coin / ρ, which keeps its expectation. If the coin is 0, only h_l is evaluated for that site.

Cost: 1 + Σ_l S_l evaluations at hard samples, and with slopes one more at p for its derivative. Only one evaluation
trains weights. The others may reuse its computation up to the site that differs. With ρ < 1, a site that is not drawn
again needs no evaluation beyond that of z. Unbiased. The method is that of local expectation gradients (Titsias,
Lázaro-Gredilla 2015, arXiv:1503.01494), with draws in place of the sum over categories. Its control variate is that of
MuProp (arXiv:1511.05176) and a table. See docs/explanation/contest.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, cast

import torch
from torch import Tensor, nn

from estimators.algebra import probabilities, through_softmax
from estimators.base import Estimate, Estimator, train_weights
from estimators.noise import Categories, gumbel_argmax, one_hot, uniform
from estimators.objective import Objective, Sites
from estimators.options import Decay, Range
from estimators.regression import Regression
from estimators.sitewise import Stacked, layout_of, sitewise, stacked
from estimators.slopes import slopes_of

LARGEST = 2**24
"""Most numbers of the matrices of the regression, 128 MiB: one site of 4,095 categories, say."""


class Draws(nn.Module):
    """Index tables: which further samples belong to the sites of one stack.

    Args:
        at: positions of the sites of the stack.
        counts: S_l of every site of the model.
        pairs: for every further sample, its site and which draw of that site it is.
    """

    place: Tensor
    count: Tensor
    stack: Tensor

    def __init__(self, at: Sequence[int], counts: Sequence[int], pairs: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        # which further sample is the r-th draw of a site; 0 as a filler if there is none
        places = [[pairs.index((site, r)) if r < counts[site] else 0 for site in at] for r in range(max(counts))]
        for name, values in (("place", places), ("count", [counts[site] for site in at]), ("stack", at)):
            self.register_buffer(name, _index(values), persistent=False)


def _index(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


class Sweep(Estimator):
    """A sweep over the sites.

    Args:
        sizes: K_l of each site.
        samples: S ≥ 1, how often each site is drawn again, or one such number for each site.
        slopes: whether the slope of f at p is part of the control variate.
        rate: ρ in (0, 1], the probability that a site is drawn again. ρ < 1 only saves time if the objective computes
            the common part of samples once, see `Objective.around`.
        decay: forgetting factor of the regression in [0, 1), for each step at which the site is drawn again. With
            rate < 1 the factor per step is 1 − ρ (1 − decay).
    """

    version = 2
    unbiased = True
    weight: Tensor
    site: Tensor
    turn: Tensor

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        samples: Annotated[int | tuple[int, ...], Range(ge=1)] = 1,
        slopes: bool = True,
        rate: Annotated[float, Range(gt=0, le=1)] = 1.0,
        decay: Decay = 0.99,
    ) -> None:
        super().__init__(sizes)
        counts: tuple[Any, ...] = (samples,) * len(self.sizes)
        if isinstance(samples, Sequence) and not isinstance(samples, str):
            counts = tuple(samples)
        if len(counts) != len(self.sizes) or not all(isinstance(s, int) and s >= 1 for s in counts):
            raise ValueError(
                f"samples must be a positive integer, or one for each of the {len(self.sizes)} sites, got {samples!r}"
            )
        if (numbers := sum((size + 1) ** 2 for size in self.sizes)) > LARGEST:
            raise ValueError(
                f"sweep fits its control variate with (K + 1)² numbers per site; these sites have {numbers:,}, and the "
                f"limit is {LARGEST:,}"
            )
        self.counts, self.rate, self.relaxed = counts, float(rate), bool(slopes)
        # at rate = 0.1 a site is drawn again at every tenth step, so it forgets a tenth as fast
        self.decay = 1 - (1 - float(decay)) * self.rate
        self.evaluations = 1 + sum(counts) + self.relaxed
        self.layout = layout_of(self.sizes)
        pairs = [(site, turn) for site, count in enumerate(counts) for turn in range(count)]
        self.register_buffer("site", _index([site for site, _ in pairs]), persistent=False)
        self.register_buffer("turn", _index([turn for _, turn in pairs]), persistent=False)
        self.register_buffer("weight", torch.zeros(()))
        self.draws = nn.ModuleList(Draws(at, counts, pairs) for at in self.layout)
        self.regressions = nn.ModuleList(Regression(len(at), self.sizes[at[0]]) for at in self.layout)

    def _draws(self) -> Sequence[Draws]:
        return cast(Sequence[Draws], self.draws)

    def _regressions(self) -> Sequence[Regression]:
        return cast(Sequence[Regression], self.regressions)

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Sites:
        """Uniforms `(1 + max S, *rows, K_l)` per site: for the sample, then for the further draws of each site. With
        rate < 1 there is one more, whose first entry decides the coin."""
        return uniform(logits, generator, (1 + max(self.counts) + (self.rate < 1),))

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        turns = 1 + max(self.counts)
        # the sample first, then the further draws of each site
        drawn = stacked(gumbel_argmax(logits, sitewise(lambda u: u[:turns], noise)))
        if self.rate < 1:  # if the coin is 0, all draws of the site equal its sample, so its deviations are 0
            coins = (u[turns, ..., 0] < self.rate for u in stacked(noise).stacks)
            pairs = zip(coins, drawn.stacks, strict=True)
            drawn = Stacked((torch.where(coin, index, index[:1]) for coin, index in pairs), drawn.layout)
        loss, values = objective.around(*self._samples(drawn, stacked(logits)))
        train_weights(loss)
        loss = loss.detach()
        p = probabilities(logits)
        slopes = self._slopes(objective, p) if self.relaxed else sitewise(torch.zeros_like, p)
        parts = zip(self._draws(), self._regressions(), drawn.stacks, p.stacks, slopes.stacks, strict=True)
        grads = [self._of_stack(loss, values, *part) for part in parts]
        if self.training:
            self.weight.mul_(self.decay).add_(self.rate)
            for regression in self._regressions():
                regression.fit(self.weight)
        return Estimate(loss, Stacked(grads, self.layout))

    def _samples(self, drawn: Stacked, like: Stacked) -> tuple[Categories, Categories]:
        """The sample, `(*rows)` per site, and the further samples with one site drawn again, `(Σ S, *rows)`."""
        first, others = [], []
        for draws, index in zip(self._draws(), drawn.stacks, strict=True):
            mine = self.site.view(-1, *(1,) * (index.dim() - 1)) == draws.stack
            first.append(index[0])
            others.append(torch.where(mine, index[1:][self.turn], index[0]))
        return Categories(first, like), Categories(others, like)

    def _slopes(self, objective: Objective, p: Stacked) -> Stacked:
        """∂f/∂x at p, without gradients for weights. 0 if it is not finite, which causes no bias."""
        _, slopes, _ = slopes_of(self, objective, sitewise(torch.detach, p), False)
        return sitewise(lambda slope: torch.nan_to_num(slope, 0.0, 0.0, 0.0), slopes)

    def _of_stack(
        self,
        loss: Tensor,
        values: Tensor,
        draws: Draws,
        regression: Regression,
        index: Tensor,
        p: Tensor,
        slope: Tensor,
    ) -> Tensor:
        """g of the n sites of a stack, `(*rows, n, K)`. In training mode adds the step to the regression's sums.

        Args:
            loss: f at the sample, `(*rows)`.
            values: f at the further samples, `(Σ S, *rows)`.
            draws: the index tables of the stack.
            regression: the control variate of the stack.
            index: categories of the sample and of the further draws, `(1 + max S, *rows, n)`.
            p: probabilities, `(*rows, n, K)`.
            slope: slopes at p, `(*rows, n, K)`.
        """
        rows = (1,) * loss.dim()
        count = draws.count
        turns = torch.arange(len(index), device=count.device).unsqueeze(-1)
        there = (turns <= count).view(-1, *rows, len(count))
        even = len(set(self.counts)) == 1  # every site has the same number of draws, so no entry is a filler
        f = values[draws.place].movedim(1, -1)
        # float64, so that a large constant in f does not round the deviations
        f = torch.cat([loss.unsqueeze(-1).expand_as(f[:1]), f]).double()
        h = regression(slope)

        def drawn(of: Tensor) -> Tensor:
            return of.expand(len(index), *of.shape).gather(-1, index.unsqueeze(-1)).squeeze(-1)

        def present(of: Tensor) -> Tensor:
            return of if even else torch.where(there.view(*there.shape, *(1,) * (of.dim() - there.dim())), of, 0)

        def deviation(of: Tensor) -> Tensor:
            number = (count + 1).view(-1, *(1,) * (of.dim() - there.dim()))
            of = of - of[:1]  # makes deviations of equal values exactly 0, in spite of the mean's rounding
            return present(of - present(of).sum(0) / number)

        z = one_hot(index, p.shape[-1], p.dtype)
        weight = (deviation(f - drawn(h)) / (count * self.rate)).to(p.dtype)
        if self.training:
            features = torch.cat([deviation(z), deviation(drawn(slope)).unsqueeze(-1)], -1).flatten(0, -3)
            regression.add(features, deviation(f).flatten(0, -2), self.decay)
        return (weight.unsqueeze(-1) * z).sum(0) + through_softmax(p, h)
