"""DisARM for categoricals: two antithetic samples by stick breaking, with the noise of each coin integrated out.

A site is a sequence of coins with logits α (see `sticks`). The coin i is 1 in z if u_i < σ(α_i), and in z̃ if
1 − u_i < σ(α_i); these values are b_i and b̃_i. The two sequences end at positions m ≤ M. The gradient in α_i is

    i ≤ m        ½ (f(z) − f(z̃)) (b_i − b̃_i) σ(|α_i|)
    m < i ≤ M    ½ (f_long − f_short) (b_i − σ(α_i))     only the longer sequence uses coin i; f_short is its baseline
    i > M        0

For two categories this is DisARM, also called U2G. Cost: 2 evaluations, in one call. Unbiased.
Dong, Mnih, Tucker 2020, arXiv:2006.10680; for categoricals 2021, arXiv:2106.08056.
"""

from __future__ import annotations

import torch

from estimators.base import Estimate, Estimator, train_weights
from estimators.noise import Categories
from estimators.objective import Objective, Sites
from estimators.sitewise import Stacked, stacked, stacks
from estimators.sticks import chosen, ends, sticks, to_logits


class DisARM(Estimator):
    """DisARM, by stick breaking.

    Args:
        sizes: K_l of each site.
    """

    unbiased = True
    evaluations = 2

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        phi = stacked(logits)
        rows = [sticks(stack) for stack in phi.stacks]
        drawn = zip(stacks(noise, phi.layout), rows, strict=True)
        up = [torch.stack([u < of.up, 1 - u < of.up]) for u, of in drawn]
        end = [ends(coins) for coins in up]
        loss = objective.hard(Categories((chosen(of, e) for of, e in zip(rows, end, strict=True)), phi))
        train_weights(loss, 0.5)
        loss = loss.detach()
        half = ((loss[0] - loss[1]) / 2)[..., None, None]
        grads = []
        for of, coins, e in zip(rows, up, end, strict=True):
            position = torch.arange(coins.shape[-1], device=half.device)
            first, second = position <= e.unsqueeze(-1)  # which coins are used, (*rows, K)
            b = coins.to(half.dtype)
            both = (b[0] - b[1]) * torch.maximum(of.up, of.down)
            # where one sequence has ended: f of the longer minus f of the shorter, times the score of the longer's coin
            alone = torch.where(first, b[0] - of.up, of.up - b[1])
            slope = half * torch.where(first & second, both, torch.where(first | second, alone, 0))
            grads.append(to_logits(of, slope))
        return Estimate(loss.mean(0), Stacked(grads, phi.layout))
