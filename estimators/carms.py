"""CARMS: leave-one-out REINFORCE on n jointly antithetic samples, corrected for their dependence.

    g_l = 1/(n(n−1)) Σ_{i<j} r_{ij} (f_i − f_j)(z_{i,l} − z_{j,l}),    r_{ij} = p(z_i) p(z_j) / P(z_i, z_j) of site l

Each sample alone has the distribution q. P is the joint probability of a pair. If r = 1 this is leave-one-out
REINFORCE. The noise is the Dirichlet copula u_i = (1 − d_i)^{n−1}, d ~ Dir(1_n), for which
P(u_i < a, u_j < a) = (2a^{1/(n−1)} − 1)₊^{n−1}. It couples the coins of stick breaking (see `sticks`). σ_m is the
probability that coin m is 1, and P_m the joint probability of the two coins m. If samples i and j end at coins s < t,

    r = Π_{m<s} (1 − σ_m)² / P_m(0, 0) · σ_s (1 − σ_s) / P_s(1, 0)

The coins of the least probable categories come first. Then every pair of categories can be drawn, and no ratio has to
be clamped; otherwise the estimator would be biased.
Cost: n evaluations, in one call. Unbiased. Dimitriev, Zhou 2021, arXiv:2105.14141 and arXiv:2110.14002.
"""

from __future__ import annotations

import torch
from torch import Tensor

from estimators.base import Estimate, SeveralSamples, train_weights
from estimators.noise import Categories
from estimators.objective import Objective, Sites
from estimators.sitewise import Stacked, stacked, stacks
from estimators.sticks import Sticks, chosen, ends, sticks


class Carms(SeveralSamples):
    """CARMS, by stick breaking.

    Args:
        sizes: K_l of each site.
        samples: n ≥ 2, the leading dimension of the single call to the objective; weights train on their mean.
    """

    unbiased = True

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        n = self.evaluations
        phi = stacked(logits)
        rows = [sticks(stack.double()) for stack in phi.stacks]  # float64: ratios of probabilities that may be small
        drawn = zip(stacks(noise, phi.layout), rows, strict=True)
        end = [ends(_copula(u.double(), n) < of.up) for u, of in drawn]
        index = Categories((chosen(of, e) for of, e in zip(rows, end, strict=True)), phi)
        loss = objective.hard(index)
        train_weights(loss, 1 / n)
        loss = loss.detach()
        first, second = torch.triu_indices(n, n, 1, device=loss.device)
        gap = ((loss[first] - loss[second]) / (n * (n - 1)))[..., None]
        grads = []
        for of, e, z in zip(rows, end, index.corners.stacks, strict=True):
            ratio = _ratio(of, e[first], e[second], n).to(gap.dtype)
            grads.append(((ratio * gap).unsqueeze(-1) * (z[first] - z[second])).sum(0))
        return Estimate(loss.mean(0), Stacked(grads, phi.layout))


def _copula(u: Tensor, n: int) -> Tensor:
    """n jointly antithetic uniforms from n independent ones, along the first dimension."""
    e = -torch.log(u)
    return (1 - e / e.sum(0)) ** (n - 1)


def _ratio(of: Sticks, i: Tensor, j: Tensor, n: int) -> Tensor:
    """r of pairs of samples that end at coins i and j, `(pairs, *rows)`; 0 for i = j, where the term vanishes."""
    up, down = of.up, of.down
    both = (2 * up ** (1 / (n - 1)) - 1).clamp(min=0) ** (n - 1)  # P(1, 1)
    neither = 1 - 2 * up + both
    passed = torch.where(neither > 0, down**2 / neither, 1).cumprod(-1)
    passed = torch.cat([torch.ones_like(passed[..., :1]), passed[..., :-1]], -1)  # product over the earlier coins
    one = torch.where(up > both, up * down / (up - both), 1)
    s = torch.minimum(i, j)
    ratio = (passed * one).expand(*s.shape, -1).gather(-1, s.unsqueeze(-1)).squeeze(-1)
    return torch.where(i == j, 0, ratio)
