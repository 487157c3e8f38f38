"""One torch call for all sites of a size: operations run on stacks of sites.

A model may have hundreds of sites with a few dozen numbers each. A call of torch then costs more than its arithmetic.
So n sites of equal K are stacked to `(*lead, *rows, n, K)`, like one more dimension of rows, and single sites are views
of their stack. Categories, which are int64 and have no dimension of size K, are stacked to `(*lead, *rows, n)`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import overload

import torch
from torch import Tensor

Layout = tuple[tuple[int, ...], ...]
"""The positions of the sites in each stack."""


class Stacked(Sequence[Tensor]):
    """A sequence of sites, stored as stacks. Views of single sites are made on first access.

    Args:
        stacks: one per entry of the layout.
        layout: the positions of the sites in each stack.
    """

    def __init__(self, stacks: Iterable[Tensor], layout: Layout) -> None:
        self.stacks, self.layout = tuple(stacks), layout

    @functools.cached_property
    def sites(self) -> tuple[Tensor, ...]:
        """Views of the single sites."""
        views = [stack.unbind(_dim(stack)) for stack in self.stacks]
        if len(views) == 1:
            return views[0]
        found = {i: site for at, of in zip(self.layout, views, strict=True) for i, site in zip(at, of, strict=True)}
        return tuple(found[i] for i in range(len(found)))

    @overload
    def __getitem__(self, i: int) -> Tensor: ...
    @overload
    def __getitem__(self, i: slice) -> tuple[Tensor, ...]: ...
    def __getitem__(self, i: int | slice) -> Tensor | tuple[Tensor, ...]:
        return self.sites[i]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.sites)

    def __len__(self) -> int:
        return sum(map(len, self.layout))


@functools.lru_cache(maxsize=256)
def layout_of(sizes: tuple[int, ...]) -> Layout:
    """The sites of each size, in the order in which sizes first appear."""
    groups: dict[int, list[int]] = {}
    for position, size in enumerate(sizes):
        groups.setdefault(size, []).append(position)
    return tuple(tuple(group) for group in groups.values())


def stacks(sites: Sequence[Tensor], layout: Layout) -> tuple[Tensor, ...]:
    """The stacks of these sites; without a copy if they are stacked in this layout already."""
    if isinstance(sites, Stacked) and sites.layout is layout:
        return sites.stacks
    return tuple(torch.stack([sites[i] for i in at], _dim(sites[at[0]])) for at in layout)


def stacked(sites: Sequence[Tensor]) -> Stacked:
    """Stack the sites `(*lead, *rows, K_l)`, unless they are stacked already."""
    if isinstance(sites, Stacked):
        return sites
    layout = layout_of(tuple(site.shape[-1] for site in sites))
    return Stacked(stacks(sites, layout), layout)


def sitewise(op: Callable[..., Tensor], like: Sequence[Tensor], *others: Sequence[Tensor]) -> Stacked:
    """Apply `op` to every site.

    Args:
        op: maps stacks, one per argument, to one stack. It may add leading dimensions, or return int64 categories
            without the dimension K.
        like: the first argument, `(*lead, *rows, K_l)`. Its sizes determine which sites are stacked together.
        *others: further arguments, one tensor per site.
    """
    first = stacked(like)
    rest = [stacks(other, first.layout) for other in others]
    return Stacked((op(*args) for args in zip(first.stacks, *rest, strict=True)), first.layout)


def _dim(of: Tensor) -> int:
    """The dimension of a stack that counts sites; for a single site, where it is to be inserted."""
    return -1 if of.dtype == torch.int64 else -2
