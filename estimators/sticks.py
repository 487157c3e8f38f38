"""Stick breaking: a categorical as a row of coins, each of which ends the row or passes on.

Category i is reached if no coin before it has come up, and chosen if its own does: coin i has the logit

    α_i = φ_i − log Σ_{j>i} exp φ_j,    σ(α_i) = p_i / P_{≥i},    P_{≥i} = Σ_{j≥i} p_j,

and the last coin always comes up. Two samples of a categorical can then be coupled coin by coin.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Sticks(NamedTuple):
    """Coins of one site.

    Attributes:
        order: `(*rows, K)`, the category that each coin belongs to.
        alpha: `(*rows, K)`, their logits; +inf of the last that can be reached.
        log_up: log σ(α).
        log_down: log(1 − σ(α)).
    """

    order: Tensor
    alpha: Tensor
    log_up: Tensor
    log_down: Tensor


def sticks(logits: Tensor) -> Sticks:
    """The coins of a site `(*rows, K)`, the least probable category first.

    In this order every coin but the last two comes up with probability at most 1/3, so that of two coupled rows either
    may go on where the other ends.
    """
    log_p, order = torch.sort(torch.log_softmax(logits, -1), dim=-1, stable=True)
    reach = log_p.flip(-1).logcumsumexp(-1).flip(-1)  # log P_{≥i}
    beyond = torch.cat([reach[..., 1:], torch.full_like(reach[..., :1], -torch.inf)], -1)
    log_up = torch.where(log_p == -torch.inf, -torch.inf, log_p - reach)
    log_down = torch.where(beyond == -torch.inf, -torch.inf, beyond - reach)
    return Sticks(order, log_up - log_down, log_up, log_down)


def ends(up: Tensor) -> Tensor:
    """The first coin that comes up, `(*lead, *rows)` from bool `(*lead, *rows, K)`; the last always does."""
    last = torch.arange(up.shape[-1], device=up.device) == up.shape[-1] - 1
    return (up | last).to(torch.int8).argmax(-1)


def to_logits(of: Sticks, slope: Tensor) -> Tensor:
    """∂/∂φ `(*rows, K)` from ∂/∂α `(*rows, K)` of the coins; 0 where a coin is certain.

    ∂α_i/∂φ_j is 1 for i = j, −p_j / P_{>i} for i < j, and 0 for i > j.
    """
    log_p = of.log_up + _shifted(of.log_down)
    beyond = _shifted(of.log_down, including=True)
    ratio = (log_p.unsqueeze(-2) - beyond.unsqueeze(-1)).exp()  # (coin i, category j): p_j / P_{>i}
    size = log_p.shape[-1]
    after = torch.ones(size, size, dtype=torch.bool, device=log_p.device).triu(1)
    ratio = torch.where(after & (beyond > -torch.inf).unsqueeze(-1), ratio, 0)
    sorted_slope = slope - (slope.unsqueeze(-1) * ratio).sum(-2)
    return torch.zeros_like(sorted_slope).scatter(-1, of.order, sorted_slope)


def _shifted(log_down: Tensor, including: bool = False) -> Tensor:
    """log P_{≥i} `(*rows, K)` as the product of the coins before; with `including`, log P_{>i}."""
    through = log_down.cumsum(-1)
    if including:
        return through
    return torch.cat([torch.zeros_like(through[..., :1]), through[..., :-1]], -1)
