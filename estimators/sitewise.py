"""One call for all sites of a size: what is done to every site is done to stacks of them.

A model may have hundreds of sites of a few dozen numbers each, and a call of torch costs more than so much arithmetic.
Sites of equal K are therefore stacked to `(*lead, *rows, n, K)`, as if the n of them were one more dimension of rows,
and handed out as views of their stack. Categories, int64 without a dimension of K, are stacked to `(*lead, *rows, n)`.
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
    """Sites that are views of their stacks, made when they are asked for.

    Args:
        stacks: one per entry of the layout.
        layout: whose sites they hold.
    """

    def __init__(self, stacks: Iterable[Tensor], layout: Layout) -> None:
        self.stacks, self.layout = tuple(stacks), layout

    @functools.cached_property
    def sites(self) -> tuple[Tensor, ...]:
        """The views."""
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
    """The sites, stacked; without a copy where they come as views of their stacks."""
    if isinstance(sites, Stacked) and sites.layout is layout:
        return sites.stacks
    return tuple(torch.stack([sites[i] for i in at], _dim(sites[at[0]])) for at in layout)


def stacked(sites: Sequence[Tensor]) -> Stacked:
    """Sites `(*lead, *rows, K_l)` as views of their stacks."""
    if isinstance(sites, Stacked):
        return sites
    layout = layout_of(tuple(site.shape[-1] for site in sites))
    return Stacked(stacks(sites, layout), layout)


def sitewise(op: Callable[..., Tensor], like: Sequence[Tensor], *others: Sequence[Tensor]) -> Stacked:
    """`op` of every site.

    Args:
        op: given stacks, one per argument, it gives one; it may add leading dimensions, or give int64 categories
            without the dimension of K.
        like: `(*lead, *rows, K_l)`, whose sizes say which sites go together.
        *others: further arguments, one tensor per site.
    """
    first = stacked(like)
    rest = [stacks(other, first.layout) for other in others]
    return Stacked((op(*args) for args in zip(first.stacks, *rest, strict=True)), first.layout)


def _dim(of: Tensor) -> int:
    """Where a stack has its sites; between that of one site's dimensions, where they are to come."""
    return -1 if of.dtype == torch.int64 else -2
