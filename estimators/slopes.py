"""∂f/∂sample, and what to say where f has none.

An `argmax` or an index inside f cuts the graph: autograd finds no path from the value to a site, although the value
depends on it. Nothing but an evaluation tells this from an f that ignores the site. So each estimator looks once at
every kind of objective that it is given, site by site, and warns of those without a path.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from estimators.base import train_weights
from estimators.objective import Objective, Sites
from estimators.sitewise import Stacked, stacked

if TYPE_CHECKING:
    from estimators.base import Estimator


def slopes_at(estimator: Estimator, objective: Objective, sample: Sites, share: float = 1.0) -> tuple[Tensor, Stacked]:
    """f at a sample `(*lead, *rows, K_l)`, detached, and ∂f/∂sample, 0 where it has none; weights train on `share` f.

    Each row's value must depend on that row's sample alone, as the protocol says.
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
    slopes = (torch.zeros_like(z) if z.grad is None else z.grad if share == 1 else z.grad / share for z in leaves)
    return loss.detach(), Stacked(slopes, sample.layout)


def slopes_of(
    estimator: Estimator, objective: Objective, sample: Stacked, differentiable: bool
) -> tuple[Tensor, Stacked, bool]:
    """f, as a control variate evaluates it, and ∂f/∂sample; detached, or differentiable again.

    The last that is returned is whether f has a slope in every site. Slopes are 0 where there are none.
    """
    leaves = [stack.requires_grad_() for stack in sample.stacks]
    inner = Stacked(leaves, sample.layout)
    value = objective.control(inner)
    kind = _kind(objective)
    if kind not in estimator.blind:
        known: Any = [None] * len(inner)
        if value.requires_grad:
            known = torch.autograd.grad(
                value.sum(), tuple(inner), create_graph=differentiable, retain_graph=True, allow_unused=True
            )
        _remember(estimator, kind, [i for i, slope in enumerate(known) if slope is None])
    whole = not estimator.blind[kind]
    if not value.requires_grad:
        return value, Stacked(map(torch.zeros_like, leaves), sample.layout), whole
    found = torch.autograd.grad(value.sum(), leaves, create_graph=differentiable, materialize_grads=True)
    return (value if differentiable else value.detach()), Stacked(found, sample.layout), whole


def _remember(estimator: Estimator, kind: object, sites: list[int]) -> None:
    warned = any(estimator.blind.values())
    estimator.blind[kind] = tuple(sites)
    if not sites or warned:
        return
    which = "any site of the sample" if len(sites) == len(estimator.sizes) else f"sites {_listed(sites)} of the sample"
    effect = (
        "this estimator goes without it and stays unbiased, with more variance"
        if estimator.unbiased
        else "the estimate is 0 there"
    )
    warnings.warn(
        f"{type(estimator).__name__} needs ∂f/∂sample, and f has no slope in {which}: {effect}. An argmax or an index "
        "inside f cuts the graph; f may also be constant there, which is no fault. Estimators that need no slope: "
        "rloo, reinforce, unordered, carms, exact.",
        stacklevel=2,
    )


def _listed(sites: list[int]) -> str:
    return ", ".join(map(str, sites[:5])) + (", …" if len(sites) > 5 else "")


def _kind(objective: object) -> object:
    """What objectives that differ in their data alone have in common: the code of a function, or a class."""
    while (inner := getattr(objective, "inner", None)) is not None:
        objective = inner
    return getattr(objective, "__code__", type(objective))
