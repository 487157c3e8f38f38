"""A sweep over the sites: each is drawn again with all others held, and a learned table beside a first-order expansion.

A sample z, at which the weights train; for each site l, S_l further draws of that site alone, c_1 … c_S ~ q_l. With
c_0 = z_l, f_s = f(z with c_s at site l) and a control variate h_l(k) for that site,

    g_l = 1/S Σ_{s=0…S} (d_s − d̄) onehot(c_s) + J(p_l) h_l,    d_s = f_s − h_l(c_s),    J(p) v = p ⊙ (v − pᵀv)

Given the other sites, c_0 … c_S are S + 1 independent draws from q_l: the first term is leave-one-out REINFORCE for
f − h_l, and the second the gradient of E_{q_l} h_l, so that g_l is unbiased whatever h_l is, if it is a function of
nothing that was drawn. In f_s − f_r only what site l changes is left: neither the other sites nor the difficulty of the
minibatch, which all of them share.

    h_l(k) = α_l ∂f/∂x_{l,k}(p) + T_l(k)

The slopes, at the mean p of q and on the same data, are those of MuProp; T_l and α_l are what a regression of the
differences of *earlier* steps comes to, see `regression`. With slopes=False, h_l is the table alone, and f is not asked
for derivatives.

With rate = ρ < 1 a coin c_l of probability ρ says for each site whether it is drawn again at all, and the first term
counts c_l / ρ times: its expectation is the same, and where c_l = 0 nothing is evaluated but what h_l is made of.

Cost: 1 + Σ_l S_l evaluations on the vertices, of which only one trains weights and the others may share with it all
that comes before their site (of ρ < 1 those of a site that is not drawn again are evaluations of the sample itself);
with slopes one more at p, for its derivative. Unbiased. Sampled local expectation
gradients (Titsias, Lázaro-Gredilla 2015, arXiv:1503.01494) with the control variate of MuProp (arXiv:1511.05176) and a
table, see docs/explanation/contest.md.
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


class Draws(nn.Module):
    """Which of all further samples are draws of the sites of one stack.

    Args:
        at: positions of the sites.
        counts: S_l of every site.
        pairs: site and turn of every further sample.
    """

    place: Tensor
    count: Tensor
    stack: Tensor

    def __init__(self, at: Sequence[int], counts: Sequence[int], pairs: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        # the r-th draw of a site; where there is none, the first of all
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
        slopes: take the first-order expansion at p into the control variate.
        rate: ρ in (0, 1], the probability with which a site is drawn again. It saves time where an objective shares
            between samples what they have in common, see `Objective.around`, and only there.
        decay: what a step at which a site is drawn again counts for in the regression of the next such, in [0, 1); with
            rate < 1, what is forgotten at a step is ρ times as much.
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
                f"samples must be a positive integer, or one for each of {len(self.sizes)} sites, got {samples!r}"
            )
        self.counts, self.rate, self.relaxed = counts, float(rate), bool(slopes)
        # a site that is drawn again at every tenth step forgets a tenth as fast
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
        """Uniforms `(1 + max S, *rows, K_l)` per site, for the sample and what each site is drawn again to be; with
        rate < 1 one more, whose first entry is the coin."""
        return uniform(logits, generator, (1 + max(self.counts) + (self.rate < 1),))

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        turns = 1 + max(self.counts)
        # at first the sample, then what each site is drawn again to be
        drawn = stacked(gumbel_argmax(logits, sitewise(lambda u: u[:turns], noise)))
        if self.rate < 1:  # without its coin a site stays as it is, and what all draws of it agree in has no deviation
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
        """The sample, `(*rows)` per site, and those with one site of it drawn again, `(Σ S, *rows)`."""
        first, others = [], []
        for draws, index in zip(self._draws(), drawn.stacks, strict=True):
            mine = self.site.view(-1, *(1,) * (index.dim() - 1)) == draws.stack
            first.append(index[0])
            others.append(torch.where(mine, index[1:][self.turn], index[0]))
        return Categories(first, like), Categories(others, like)

    def _slopes(self, objective: Objective, p: Stacked) -> Stacked:
        """∂f/∂x at p, of the objective that no weight trains on; 0 where it is not finite, which biases nothing."""
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
        """g of the n sites of a stack, `(*rows, n, K)`; what is to be learned of it goes into the sums.

        Args:
            loss, values: f at the sample `(*rows)` and at the others `(Σ S, *rows)`.
            draws, regression: of the stack.
            index: categories of the sample and of the further draws, `(1 + max S, *rows, n)`.
            p, slope: `(*rows, n, K)`.
        """
        rows = (1,) * loss.dim()
        count = draws.count
        turns = torch.arange(len(index), device=count.device).unsqueeze(-1)
        there = (turns <= count).view(-1, *rows, len(count))
        even = len(set(self.counts)) == 1  # nothing is missing
        f = values[draws.place].movedim(1, -1)
        # float64: a constant in f must not show in the deviations
        f = torch.cat([loss.unsqueeze(-1).expand_as(f[:1]), f]).double()
        h = regression(slope)

        def drawn(of: Tensor) -> Tensor:
            return of.expand(len(index), *of.shape).gather(-1, index.unsqueeze(-1)).squeeze(-1)

        def present(of: Tensor) -> Tensor:
            return of if even else torch.where(there.view(*there.shape, *(1,) * (of.dim() - there.dim())), of, 0)

        def deviation(of: Tensor) -> Tensor:
            number = (count + 1).view(-1, *(1,) * (of.dim() - there.dim()))
            of = of - of[:1]  # exactly 0 where all are equal, which rounding of their mean would not leave
            return present(of - present(of).sum(0) / number)

        z = one_hot(index, p.shape[-1], p.dtype)
        weight = (deviation(f - drawn(h)) / (count * self.rate)).to(p.dtype)
        if self.training:
            features = torch.cat([deviation(z), deviation(drawn(slope)).unsqueeze(-1)], -1).flatten(0, -3)
            regression.add(features, deviation(f).flatten(0, -2), self.decay)
        return (weight.unsqueeze(-1) * z).sum(0) + through_softmax(p, h)
