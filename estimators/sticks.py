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


def chosen(of: Sticks, end: Tensor) -> Tensor:
    """The categories, `(*lead, *rows)`, of the coins `(*lead, *rows)` at which rows end."""
    order = of.order.expand(*end.shape, of.order.shape[-1])
    return order.gather(-1, end.unsqueeze(-1)).squeeze(-1)


def to_logits(of: Sticks, slope: Tensor) -> Tensor:
    """∂/∂φ `(*rows, K)` from ∂/∂α `(*rows, K)` of the coins; 0 where a coin is certain.

    ∂α_i/∂φ_j is 1 for i = j, −p_j / P_{>i} for i < j, and 0 for i > j.
    """
    log_p = of.log_up + _shifted(of.log_down)
    beyond = _shifted(of.log_down, including=True)
    # earlier coins take p_j Σ_{i<j} slope_i / P_{>i} from category j; P_{>i} ≥ 1/K, the least probable being first
    each = torch.where(beyond > -torch.inf, slope * (-beyond).exp(), 0)
    sorted_slope = slope - log_p.exp() * (each.cumsum(-1) - each)
    return torch.zeros_like(sorted_slope).scatter(-1, of.order, sorted_slope)


def _shifted(log_down: Tensor, including: bool = False) -> Tensor:
    """log P_{≥i} `(*rows, K)` as the product of the coins before; with `including`, log P_{>i}."""
    through = log_down.cumsum(-1)
    if including:
        return through
    return torch.cat([torch.zeros_like(through[..., :1]), through[..., :-1]], -1)
