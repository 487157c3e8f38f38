"""Sum and sample: the k likeliest configurations are summed exactly, and one of all others is sampled.

    g_l = Σ_{c∈C} q(c) (f_c − b)(c_l − p_l) + q̄ (f_v − b)(v_l − p_l)
    q̄ = 1 − Σ_{c∈C} q(c),    v ~ q(· | not in C),    b = Σ_{c∈C} q(c) f_c / Σ_{c∈C} q(c)

C is the set of the k likeliest configurations. The sum over C and the mean over v are the two parts of E_q f ∇log q. b
does not depend on v, and E_q ∇log q = 0, so g is unbiased. Without b this is REINFORCE, averaged over whether the
sample falls into C, so its variance is at most that of REINFORCE (Rao-Blackwell). With k = 1, b is the value of the
most probable configuration, a *self-critical* baseline. Weights train on Σ q(c) f_c + q̄ f_v.

v is drawn site by site. Given the sites before l, category j of site l has the weight

    p_{l,j} (1 − Σ_c T_{c,l}),    T_{c,l} = Π_{m>l} p_{m,c_m}

where the sum is over those c of C that agree with v before l and have c_l = j.
Cost: k + 1 evaluations, in one call, fewer if there are fewer configurations. Unbiased.
Liu, Regier, Tripuraneni, Jordan, McAuliffe 2019, arXiv:1810.04777 (there for one site, and without b).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from estimators.algebra import log_probability, probabilities, scores, weighted_sum
from estimators.base import Estimate, Estimator, train_weights
from estimators.beam import trace_back
from estimators.noise import Categories
from estimators.objective import Objective, Sites
from estimators.options import Range
from estimators.sitewise import Stacked, sitewise


class SumAndSample(Estimator):
    """Sum and sample.

    Args:
        sizes: K_l of each site.
        top: k ≥ 1, how many of the likeliest configurations are summed; f is evaluated at k + 1 samples at once.
    """

    unbiased = True

    def __init__(self, sizes: Sequence[int], *, top: Annotated[int, Range(ge=1)] = 1) -> None:
        super().__init__(sizes)
        configurations = math.prod(self.sizes)
        self.top = min(top, configurations)
        self.evaluations = min(self.top + 1, configurations)

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        p = probabilities(logits)
        exact = sitewise(lambda site: log_probability(site.double()), logits)
        top, log_mass = likeliest(exact, self.top)
        mass = log_mass.exp()
        if self.evaluations == self.top:  # all are summed
            found, share = top, mass
        else:
            rest, left = outside(sitewise(torch.exp, exact), top, noise)
            found = Stacked((torch.cat(pair) for pair in zip(top.stacks, rest.stacks, strict=True)), p.layout)
            share = torch.cat([mass, left.unsqueeze(0)])
        # what has no probability is replaced by the likeliest: f may be undefined there
        there = (share > 0).unsqueeze(-1)
        index = Categories((torch.where(there, i, i[:1]) for i in found.stacks), p)
        loss = objective.hard(index)
        train_weights(loss, share.to(loss.dtype))
        loss = loss.detach()
        value = loss.double()
        baseline = (torch.softmax(log_mass, 0) * value[: self.top]).sum(0)  # q of all C may underflow
        advantage = share * (value - baseline)
        return Estimate((share * value).sum(0).to(loss.dtype), weighted_sum(advantage.to(loss.dtype), scores(index, p)))


def likeliest(log_p: Stacked, k: int) -> tuple[Stacked, Tensor]:
    """The k likeliest configurations, `(k, *rows)` per site, and log q of them, `(k, *rows)`, in order.

    A beginning of one of the k likeliest configurations is one of the k likeliest beginnings, so k beams suffice.
    """
    total = log_p[0].new_zeros((*log_p[0].shape[:-1], 1))
    places = []
    for site in log_p:
        longer = (total.unsqueeze(-1) + site.unsqueeze(-2)).flatten(-2)
        total, place = longer.topk(min(k, longer.shape[-1]), -1)
        places.append(place)
    return trace_back(places, log_p), total.movedim(-1, 0)


def outside(p: Stacked, excluded: Stacked, noise: Sites) -> tuple[Stacked, Tensor]:
    """A sample of q given that it is none of the excluded configurations, `(1, *rows)` per site, and q̄ `(*rows)`.

    If q̄ is 0 the sample has no meaning.
    """
    chosen = [site.gather(-1, c.movedim(0, -1)) for site, c in zip(p, excluded, strict=True)]  # p of c_l, (*rows, k)
    tails = [torch.ones_like(chosen[0])]  # T_{c,l}, from the last site
    for one in reversed(chosen[1:]):
        tails.append(tails[-1] * one)
    tails.reverse()
    left = (1 - (tails[0] * chosen[0]).sum(-1)).clamp(min=0)
    agrees, possible = torch.ones_like(tails[0]), torch.ones_like(left)
    sample = []
    for site, c, tail, u in zip(p, excluded, tails, noise, strict=True):
        category = c.movedim(0, -1)
        taken = torch.zeros_like(site).scatter_add(-1, category, agrees * tail)
        weight = site * (1 - taken).clamp(min=0)
        v = (-u.double().log() / weight).argmin(-1, keepdim=True)
        agrees = agrees * (category == v)
        possible = possible * (weight.gather(-1, v) > 0).squeeze(-1)  # fails where q̄ is a rounding error
        sample.append(v.squeeze(-1))
    return Stacked(
        (torch.stack([sample[i] for i in at], -1).unsqueeze(0) for at in p.layout), p.layout
    ), left * possible
