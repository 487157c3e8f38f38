"""Configurations of several independent sites that a beam search has found: how to read them back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from estimators.objective import Sites
from estimators.sitewise import Stacked, layout_of


def trace_back(places: Sequence[Tensor], sites: Sites) -> Stacked:
    """The categories `(k, *rows)` per site of the k beams after the last site.

    Args:
        places: for each site int64 `(*rows, beams)`: of every beam its place among all continuations of the beams
            before it, where the category varies fastest.
        sites: the logits `(*rows, K_l)`, in the order of the search.
    """
    sizes = [site.shape[-1] for site in sites]
    beam = torch.arange(places[-1].shape[-1], device=places[-1].device).expand_as(places[-1])
    found = []
    for place, size in zip(reversed(places), reversed(sizes), strict=True):
        place = place.gather(-1, beam)
        found.append(place % size)
        beam = place // size
    found.reverse()
    layout = layout_of(tuple(sizes))
    return Stacked((torch.stack([found[i] for i in at], -1).movedim(-2, 0) for at in layout), layout)
