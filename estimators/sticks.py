"""Stick breaking: a categorical as a row of coins, each of which ends the row or passes on.

Category i is reached if no coin before it has come up, and chosen if its own does: coin i has the logit

    α_i = φ_i − log Σ_{j>i} exp φ_j,    σ(α_i) = p_i / P_{≥i},    P_{≥i} = Σ_{j≥i} p_j,

and the last coin always comes up. Two samples of a categorical can then be coupled coin by coin.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from estimators.algebra import probability


class Sticks(NamedTuple):
    """Coins of one site.

    Attributes:
        order: `(*rows, K)`, the category that each coin belongs to.
        p: `(*rows, K)`, its probability.
        beyond: P_{>i}, of all later ones; 0 of the last that can be reached.
        up: σ(α), the probability with which the coin comes up; 0 of a forbidden category.
        down: 1 − σ(α).
    """

    order: Tensor
    p: Tensor
    beyond: Tensor
    up: Tensor
    down: Tensor


def sticks(logits: Tensor) -> Sticks:
    """The coins of a site `(*rows, K)` of which the greatest logit is 0, the least probable category first.

    In this order every coin but the last two comes up with probability at most 1/3, so that of two coupled rows either
    may go on where the other ends; and no sum of later probabilities is much smaller than its terms.
    """
    p, order = torch.sort(probability(logits), dim=-1, stable=True)
    reach = p.flip(-1).cumsum(-1).flip(-1)  # P_{≥i}
    beyond = reach - p
    return Sticks(order, p, beyond, p / reach, beyond / reach)


def ends(up: Tensor) -> Tensor:
    """The first coin that comes up, `(*lead, *rows)` from bool `(*lead, *rows, K)`; the last always does."""
    last = torch.arange(up.shape[-1], device=up.device) == up.shape[-1] - 1
    return (up | last).to(torch.int8).argmax(-1)


def chosen(of: Sticks, end: Tensor) -> Tensor:
    """The categories, `(*lead, *rows)`, of the coins `(*lead, *rows)` at which rows end."""
    order = of.order.expand(*end.shape, of.order.shape[-1])
    return order.gather(-1, end.unsqueeze(-1)).squeeze(-1)


def to_logits(of: Sticks, slope: Tensor) -> Tensor:
    """∂/∂φ `(*rows, K)` from ∂/∂α `(*rows, K)` of the coins; 0 where a coin is certain.

    ∂α_i/∂φ_j is 1 for i = j, −p_j / P_{>i} for i < j, and 0 for i > j.
    """
    slope = torch.where((of.up > 0) & (of.down > 0), slope, 0)
    # earlier coins take p_j Σ_{i<j} slope_i / P_{>i} from category j; P_{>i} ≥ 1/K, the least probable being first
    each = slope / torch.where(of.beyond > 0, of.beyond, 1)
    sorted_slope = slope - of.p * (each.cumsum(-1) - each)
    return torch.zeros_like(sorted_slope).scatter_(-1, of.order, sorted_slope)
