"""DisARM for categoricals: two antithetic samples by stick breaking, each coin's noise integrated out.

A site is a row of coins with logits α (see `sticks`). Coin i comes up in z if u_i < σ(α_i), in z̃ if 1 − u_i < σ(α_i).
With m ≤ M the positions at which the two rows end, the gradient with respect to α_i is

    i ≤ m        ½ (f(z) − f(z̃)) (b_i − b̃_i) σ(|α_i|)
    m < i ≤ M    ½ (f_long − f_short) (b_i − σ(α_i))     the longer row alone uses coin i, and f_short is its baseline
    i > M        0

For two categories this is DisARM, also called U2G. Cost: 2 evaluations, in one call. Unbiased.
Dong, Mnih, Tucker 2020, arXiv:2006.10680; for categoricals 2021, arXiv:2106.08056.
"""

from __future__ import annotations

import torch

from estimators.base import Estimate, Estimator, Objective, Sites, train_weights
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
        up = [torch.stack([u < of.log_up.exp(), 1 - u < of.log_up.exp()]) for u, of in drawn]
        end = [ends(coins) for coins in up]
        loss = objective.hard(Stacked((chosen(of, e) for of, e in zip(rows, end, strict=True)), phi.layout))
        train_weights(loss, 0.5)
        loss = loss.detach()
        half = ((loss[0] - loss[1]) / 2)[..., None, None]
        grads = []
        for of, coins, e in zip(rows, up, end, strict=True):
            position = torch.arange(coins.shape[-1], device=half.device)
            used = position <= e.unsqueeze(-1)  # (2, *rows, K)
            b = coins.to(half.dtype)
            both = (b[0] - b[1]) * torch.sigmoid(of.alpha.abs())
            # where one row has ended: f of the longer minus f of the shorter, times the score of the longer's coin
            alone = torch.where(used[0], b[0] - of.log_up.exp(), of.log_up.exp() - b[1])
            slope = half * torch.where(used.all(0), both, torch.where(used.any(0), alone, 0))
            certain = torch.isinf(of.alpha) | torch.isnan(of.alpha)
            grads.append(to_logits(of, torch.where(certain, 0, slope)))
        return Estimate(loss.mean(0), Stacked(grads, phi.layout))
