"""Hypothesis strategies that several test files share."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

seeds = st.integers(0, 2**31 - 1)


def sizes(max_sites: int = 3, max_size: int = 5, min_size: int = 1) -> st.SearchStrategy[tuple[int, ...]]:
    """K_l of one site or more."""
    return st.lists(st.integers(min_size, max_size), min_size=1, max_size=max_sites).map(tuple)


def rows() -> st.SearchStrategy[tuple[int, ...]]:
    return st.sampled_from([(), (1,), (3,), (2, 3)])


@st.composite
def logits(
    draw: st.DrawFn, sizes: tuple[int, ...], rows: tuple[int, ...] = (), forbidden: bool = True, scale: float = 3.0
) -> tuple[Tensor, ...]:
    """Float64 logits `(*rows, K_l)` per site; sometimes with −inf for some categories, never for all of a site."""
    generator = torch.Generator().manual_seed(draw(seeds))
    spread = draw(st.floats(0, scale))
    mask = forbidden and draw(st.booleans())
    sites = []
    for size in sizes:
        site = spread * torch.randn(*rows, size, generator=generator, dtype=torch.float64)
        if mask:
            allowed = torch.randint(size, (*rows, 1), generator=generator)
            drop = torch.rand(*rows, size, generator=generator) < 0.3
            site = site.masked_fill(drop.scatter(-1, allowed, False), -float("inf"))
        sites.append(site)
    return tuple(sites)
