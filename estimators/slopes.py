"""∂f/∂sample, and a warning if f has none.

An `argmax` or an index inside f cuts the graph: autograd then finds no path from the value to a site, although the
value depends on it. The graph of an f that ignores the site looks the same. So each estimator checks every site once
for each kind of objective, and warns of sites without a path. An objective of a known kind may lose its slopes later,
for example with a flag of a module. Every call sees whether all sites of one size have lost theirs.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from estimators.base import train_weights
from estimators.objective import Objective, Sites
from estimators.sitewise import Stacked, stacked

if TYPE_CHECKING:
    from estimators.base import Estimator


def slopes_at(estimator: Estimator, objective: Objective, sample: Sites, share: float = 1.0) -> tuple[Tensor, Stacked]:
    """f at a sample `(*lead, *rows, K_l)`, detached, and ∂f/∂sample (0 if there is none). Weights train on `share` · f.

    The value of each row must depend on the sample of that row only.
    """
    sample = stacked(sample)
    leaves = [stack.detach().requires_grad_() for stack in sample.stacks]
    inner = Stacked(leaves, sample.layout)
    kind = _kind(objective)
    if first := kind not in estimator.blind:
        for site in inner:
            site.retain_grad()
    loss = objective(inner)
    train_weights(loss, share)
    if first:
        _remember(estimator, kind, [i for i, site in enumerate(inner) if site.grad is None])
    else:
        _lost(estimator, kind, sample, [z.grad for z in leaves])
    slopes = (torch.zeros_like(z) if z.grad is None else z.grad if share == 1 else z.grad / share for z in leaves)
    return loss.detach(), Stacked(slopes, sample.layout)


def slopes_of(
    estimator: Estimator, objective: Objective, sample: Stacked, differentiable: bool
) -> tuple[Tensor, Stacked, bool]:
    """`objective.control` at the sample, ∂f/∂sample, and whether f has a slope in every site.

    A slope that does not exist is 0. The results are detached unless `differentiable`.
    """
    leaves = [stack.requires_grad_() for stack in sample.stacks]
    inner = Stacked(leaves, sample.layout)
    value = objective.control(inner)
    kind = _kind(objective)
    if kind not in estimator.blind or (value.requires_grad and len(estimator.blind[kind]) == len(inner)):
        known: Any = [None] * len(inner)
        if value.requires_grad:
            known = torch.autograd.grad(
                value.sum(), tuple(inner), create_graph=differentiable, retain_graph=True, allow_unused=True
            )
        _remember(estimator, kind, [i for i, slope in enumerate(known) if slope is None])
    found: Sequence[Tensor | None] = [None] * len(leaves)
    if value.requires_grad:
        found = torch.autograd.grad(value.sum(), leaves, create_graph=differentiable, allow_unused=True)
    _lost(estimator, kind, sample, found)
    slopes = (torch.zeros_like(z) if slope is None else slope for z, slope in zip(leaves, found, strict=True))
    value = value if differentiable and value.requires_grad else value.detach()
    return value, Stacked(slopes, sample.layout), not estimator.blind[kind]


def _lost(estimator: Estimator, kind: object, sample: Stacked, found: Sequence[Tensor | None]) -> None:
    """Notes the sites that have lost their slopes since `_remember`, from the slopes of the stacks."""
    lost = {i for at, slope in zip(sample.layout, found, strict=True) if slope is None for i in at}
    lost = {i for i in lost if estimator.sizes[i] > 1} - set(estimator.blind[kind])
    if lost:
        _remember(estimator, kind, sorted(lost | set(estimator.blind[kind])))


def _remember(estimator: Estimator, kind: object, without: Iterable[int]) -> None:
    """Notes the sites of a kind of objective that have no slope, and warns of them once for each kind."""
    sites = tuple(i for i in without if estimator.sizes[i] > 1)  # nothing depends on a site of one category
    warned = estimator.blind.get(kind)
    estimator.blind[kind] = sites
    if not sites or warned:
        return
    which = "any site of the sample" if len(sites) == len(estimator.sizes) else f"sites {_listed(sites)} of the sample"
    effect = (
        "this estimator works without it and stays unbiased, with more variance"
        if estimator.unbiased
        else "the estimate is 0 there"
    )
    warnings.warn(
        f"{type(estimator).__name__} needs ∂f/∂sample, and f has no slope in {which}: {effect}. An argmax or an index "
        "inside f cuts the graph. If f does not depend on the site, all is well. Estimators that need no slope: "
        "rloo, reinforce, unordered, carms, exact.",
        stacklevel=2,
    )


def _listed(sites: Sequence[int]) -> str:
    return ", ".join(map(str, sites[:5])) + (", …" if len(sites) > 5 else "")


def _kind(objective: object) -> object:
    """A key shared by objectives that differ in their data only: the code of a function, or a class."""
    while (inner := getattr(objective, "inner", None)) is not None:
        objective = inner
    return getattr(objective, "__code__", type(objective))
