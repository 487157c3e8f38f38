"""Stick breaking: a categorical variable as a sequence of coins. The first coin that is 1 ends the sequence.

Category i is chosen if its coin is 1 and all earlier coins are 0. Coin i has the logit

    α_i = φ_i − log Σ_{j>i} exp φ_j,    σ(α_i) = p_i / P_{≥i},    P_{≥i} = Σ_{j≥i} p_j,

and the last coin is always 1. Two samples of a categorical can then be coupled coin by coin.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from estimators.algebra import probability


class Sticks(NamedTuple):
    """Coins of one site; all fields have the shape `(*rows, K)`.

    Attributes:
        order: the category of each coin.
        p: the probability of this category.
        beyond: P_{>i}, the probability of all later categories; 0 for the last possible one.
        up: σ(α), the probability that the coin is 1; 0 for a forbidden category.
        down: 1 − σ(α).
    """

    order: Tensor
    p: Tensor
    beyond: Tensor
    up: Tensor
    down: Tensor


def sticks(logits: Tensor) -> Sticks:
    """The coins of a site with logits `(*rows, K)` whose maximum is 0, the least probable category first.

    In this order every coin except the last two is 1 with probability at most 1/3. So each of two coupled sequences may
    go on where the other ends. Also, no sum of later probabilities is much smaller than its terms.
    """
    p, order = torch.sort(probability(logits), dim=-1, stable=True)
    reach = p.flip(-1).cumsum(-1).flip(-1)  # P_{≥i}
    beyond = reach - p
    return Sticks(order, p, beyond, p / reach, beyond / reach)


def ends(up: Tensor) -> Tensor:
    """Position of the first coin that is 1, `(*lead, *rows)`, from bool `(*lead, *rows, K)`; the last always counts."""
    last = torch.arange(up.shape[-1], device=up.device) == up.shape[-1] - 1
    return (up | last).to(torch.int8).argmax(-1)


def chosen(of: Sticks, end: Tensor) -> Tensor:
    """The categories, `(*lead, *rows)`, of the coins `(*lead, *rows)` at which sequences end."""
    order = of.order.expand(*end.shape, of.order.shape[-1])
    return order.gather(-1, end.unsqueeze(-1)).squeeze(-1)


class Pair(NamedTuple):
    """Two antithetic samples of one site.

    Attributes:
        drawn: the categories of z and z̃, `(2, *lead, *rows)`.
        weight: E[f ∇_α log q] is the mean of ½ (f(z) − f(z̃)) times this weight, `(*lead, *rows, K)`.
    """

    drawn: Tensor
    weight: Tensor


def antithetic(of: Sticks, u: Tensor) -> Pair:
    """z and z̃ from one uniform per coin, `(*lead, *rows, K)`, with the noise of each coin integrated out of the weight.

    The coin i is 1 in z if u_i < σ(α_i), and in z̃ if 1 − u_i < σ(α_i); these values are b_i and b̃_i. The two sequences
    end at positions m ≤ M. The weight of coin i is

        i ≤ m        (b_i − b̃_i) σ(|α_i|)
        m < i ≤ M    b_i − σ(α_i)           if only z uses coin i
                     σ(α_i) − b̃_i           if only z̃ uses it
        i > M        0

    In the second case f of the shorter sequence is a baseline, which does not depend on coin i.
    """
    up = torch.stack([u < of.up, 1 - u < of.up])
    end = ends(up)
    position = torch.arange(up.shape[-1], device=up.device)
    first, second = position <= end.unsqueeze(-1)  # which coins are used
    b = up.to(of.up.dtype)
    both = (b[0] - b[1]) * torch.maximum(of.up, of.down)
    alone = torch.where(first, b[0] - of.up, of.up - b[1])
    return Pair(chosen(of, end), torch.where(first & second, both, torch.where(first | second, alone, 0)))


def to_logits(of: Sticks, slope: Tensor) -> Tensor:
    """The gradient in φ, `(*rows, K)`, from the gradient in the coins' α, `(*rows, K)`. Certain coins count as 0.

    ∂α_i/∂φ_j is 1 for i = j, −p_j / P_{>i} for i < j, and 0 for i > j.
    """
    slope = torch.where((of.up > 0) & (of.down > 0), slope, 0)
    # earlier coins subtract p_j Σ_{i<j} slope_i / P_{>i} from category j; in this order P_{>i} ≥ 1/K
    each = slope / torch.where(of.beyond > 0, of.beyond, 1)
    sorted_slope = slope - of.p * (each.cumsum(-1) - each)
    return torch.zeros_like(sorted_slope).scatter_(-1, of.order, sorted_slope)
