"""Three sites of 3, 2 and 2 categories: random logits, all configurations, and uniforms that draw a given one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from oracles import seeded
from torch import Tensor

SIZES = (3, 2, 2)


def logits_of(seed: int, scale: float = 1.0) -> tuple[Tensor, ...]:
    drawn = (torch.randn(k, generator=seeded(10 * seed + i), dtype=torch.float64) for i, k in enumerate(SIZES))
    return tuple(scale * site for site in drawn)


def configurations(logits: Sequence[Tensor]) -> dict[tuple[int, ...], float]:
    """Every configuration and its probability."""
    p = [torch.softmax(site, -1) for site in logits]
    tuples = itertools.product(*(range(len(q)) for q in p))
    return {z: math.prod(float(q[k]) for q, k in zip(p, z, strict=True)) for z in tuples}


def wins(z: Sequence[int]) -> tuple[Tensor, ...]:
    """Uniforms with which the Gumbel-max trick draws this configuration."""
    u = tuple(torch.full((k,), 1e-12, dtype=torch.float64) for k in SIZES)
    for site, k in zip(u, z, strict=True):
        site[k] = 1 - 1e-12
    return u
