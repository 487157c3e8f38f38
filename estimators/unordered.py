"""The unordered-set estimator: k different configurations, drawn without replacement, and baselines from the same set.

    g_l = Σ_{s∈S} p_s R(S, s) [f_s − Σ_{r∈S} p_r R(S, s, r) f_r] (z_{s,l} − p_l)

S is the set of the first k configurations drawn without replacement from q. It is the Gumbel top k of all Π K
configurations, found by a beam search over the sites (Kool, van Hoof, Welling 2019, arXiv:1903.06059). R(S, s) is the
probability of S given that s was drawn first, divided by the probability of S. Then Σ p_s R(S, s) f_s is unbiased, and
its weights sum to 1. Let W(T) be the probability of drawing the rest of S, in any order, after T ⊆ S:

    W(S) = 1,    W(T) = Σ_{s∈S∖T} p_s / (1 − Σ_{t∈T} p_t) W(T ∪ s)
    R(S, s) = W({s}) / W(∅),    R(S, s, r) = W({s, r}) / W({s}) and 1 for r = s

Cost: k evaluations in one call, fewer if there are fewer configurations; 2^k terms for W. Unbiased.
Kool, van Hoof, Welling 2020, arXiv:2002.06043.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from estimators.algebra import probabilities, scores, weighted_sum
from estimators.base import Estimate, Estimator, train_weights
from estimators.beam import trace_back
from estimators.noise import Categories, gumbel, uniform
from estimators.objective import Objective, Sites
from estimators.options import Range
from estimators.sitewise import layout_of, stacks

_MOST = 8


class Unordered(Estimator):
    """The unordered-set estimator.

    Args:
        sizes: K_l of each site.
        samples: k in 2 … 8, the leading dimension of the single call to the objective. Weights train on Σ p_s R(S, s)
            f_s.
    """

    unbiased = True

    def __init__(self, sizes: Sequence[int], *, samples: Annotated[int, Range(ge=2, le=_MOST)] = 2) -> None:
        super().__init__(sizes)
        if not 2 <= samples <= _MOST:
            raise ValueError(f"samples must be 2 … {_MOST}, got {samples}")
        self.evaluations = min(samples, math.prod(self.sizes))

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Sites:
        return uniform(logits, generator, (self.evaluations,))

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        index, log_p = _top(logits, noise, self.evaluations)
        p = probabilities(logits)
        share, baseline = _ratios(log_p)
        # If fewer than k configurations are possible, the first is repeated with weight 0: f may be undefined
        # elsewhere.
        there = share > 0
        index = Categories((torch.where(there.unsqueeze(-1), i, i[:1]) for i in stacks(index, p.layout)), p)
        loss = objective.hard(index)
        train_weights(loss, share.to(loss.dtype))
        loss = loss.detach()
        value = loss.double()
        mass = share * (value - (baseline * value.unsqueeze(0)).sum(1))
        grads = weighted_sum(mass.to(logits[0].dtype), scores(index, p))
        return Estimate((share * value).sum(0).to(loss.dtype), grads)


def _top(logits: Sites, noise: Sites, k: int) -> tuple[Sites, Tensor]:
    """k configurations without replacement, `(k, *rows)` per site, and their log-probabilities in float64.

    A beam is a prefix, together with the maximum m of the Gumbel-perturbed log-probabilities of all configurations that
    begin with it. The perturbed values of its continuations are drawn, then shifted so that their maximum is m. With D
    the distance of each to the largest drawn value, the shifted values are

        m − log(1 + e^v),    v = m − (largest drawn) + D + log(1 − e^{−D})

    The last two terms are the same for all prefixes and are computed for all sites at once.
    """
    layout = layout_of(tuple(site.shape[-1] for site in logits))
    log_q, most, beyond = [], [], []
    for site, u in zip(stacks(logits, layout), stacks(noise, layout), strict=True):
        log_q.append(_log_softmax(site.double()).unsqueeze(-2))  # (*rows, n, 1, K)
        drawn = log_q[-1] + gumbel(u.double()).movedim(0, -2)  # (*rows, n, k, K)
        most.append(drawn.amax(-1))
        distance = most[-1].unsqueeze(-1) - drawn
        beyond.append(distance + torch.log(1 - torch.exp(-distance)))
    each = {
        i: parts
        for at, *of in zip(layout, log_q, most, beyond, strict=True)
        for i, *parts in zip(at, of[0].unbind(-3), of[1].unbind(-2), of[2].unbind(-3), strict=True)
    }
    best = log_p = log_q[0].new_zeros((*logits[0].shape[:-1], 1))  # (*rows, beams)
    places = []
    for i in range(len(each)):
        log_q_i, most_i, beyond_i = each[i]
        beams = best.shape[-1]
        shift = (best - log_p - most_i[..., :beams]).nan_to_num()  # an impossible beam gives −inf + inf
        v = shift.unsqueeze(-1) + beyond_i[..., :beams, :]
        moved = (best.unsqueeze(-1) - torch.nn.functional.softplus(v, threshold=40)).flatten(-2)  # beam varies slowest
        best, place = moved.topk(min(k, moved.shape[-1]), -1)
        log_p = (log_p.unsqueeze(-1) + log_q_i).flatten(-2).gather(-1, place)
        places.append(place)
    return trace_back(places, logits), log_p.movedim(-1, 0)


def _log_softmax(site: Tensor) -> Tensor:
    """log p. Unlike torch's own it keeps log p ≈ −(1 − p) for the likeliest entry instead of rounding it to 0."""
    most, place = site.max(-1, keepdim=True)
    odds = (site - most).exp().scatter(-1, place, 0).sum(-1, keepdim=True)
    return site - most - torch.log1p(odds)


def _ratios(log_p: Tensor) -> tuple[Tensor, Tensor]:
    """p_s R(S, s) `(k, *rows)` and p_r R(S, s, r) `(k, k, *rows)`, s first, from log-probabilities `(k, *rows)`.

    With many sites the probability of a configuration is below the smallest number. In every ratio as many
    probabilities stand above as below, so there they are divided by the largest one.
    """
    k, logs, p = len(log_p), log_p.unbind(), log_p.exp().unbind()
    w = (log_p - log_p.amax(0)).exp().unbind()
    after: dict[int, Tensor] = {2**k - 1: torch.ones_like(p[0])}
    for taken in range(2**k - 2, -1, -1):
        inside = [logs[s] for s in range(k) if taken >> s & 1]
        outside = [s for s in range(k) if not taken >> s & 1]
        left = functools.reduce(torch.add, (p[s] for s in outside))
        total = functools.reduce(torch.add, (w[s] * after[taken | 1 << s] for s in outside))
        if inside:  # 1 − Σ p in logarithms, because Σ p may be close to 1; it is at least the p left in S
            log_sum = torch.logsumexp(torch.stack(inside), 0) if len(inside) > 1 else inside[0]
            total = total / torch.maximum(-torch.expm1(log_sum.clamp(max=0)), left)
        after[taken] = torch.where(total > 0, total, 1)
    share = torch.stack([w[s] * after[1 << s] / after[0] for s in range(k)])
    rows = [[w[r] * (after[1 << s | 1 << r] / after[1 << s]) if r != s else p[r] for r in range(k)] for s in range(k)]
    return share, torch.stack([torch.stack(row) for row in rows])
