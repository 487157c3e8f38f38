"""Which estimators to try first, from what an objective can do; nothing is measured.

The rules follow from the reference rows of this project, see docs/how-to/choose.md. They need not hold for your
objective: `suites.compare` measures that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from estimators.noise import one_hot
from estimators.objective import Objective, Sites, adapt, sites_of

ENUMERABLE = 64
"""Configurations up to which enumeration is likely to pay."""
TRIED = 16
"""Categories, beside one of each categorical, up to which evaluating each by itself is likely to pay."""
FEW = 8
"""Categoricals up to which drawing each of them again is likely to pay."""


class Advice(NamedTuple):
    """An estimator's label, and why it is worth trying."""

    estimator: str
    reason: str


def pick(objective: Callable[[Sites], Tensor], logits: Sites, *, unbiased: bool = False) -> list[Advice]:
    """The two or three estimators to try first, the most promising first.

    The objective is called once, at the likeliest categories, to see whether it has slopes ∂f/∂sample.

    Args:
        objective: f, see `Objective`; one with an `around` of its own evaluates parts cheaply.
        logits: one tensor `(*rows, K_l)` per categorical.
        unbiased: leave biased estimators out.

    Raises:
        ValueError: the logits are not such tensors, or the objective does not give one value per sample.
    """
    logits = sites_of(logits)
    sizes = tuple(int(site.shape[-1]) for site in logits)
    slopes = _has_slopes(objective, logits, sizes)
    count = math.prod(sizes)
    found = []
    if count <= ENUMERABLE:
        found.append(Advice("exact", f"there are only {count} configurations: enumeration has no error"))
    if (further := sum(size - 1 for size in sizes)) <= TRIED:
        reason = f"each of the {further} other categories can be tried by itself: very little variance"
        found.append(Advice("measure_valued", reason))
    label = "sweep" if slopes else "sweep[slopes=false]"
    if _brings(objective, "around"):
        reason = "f evaluates neighbouring samples cheaply: least variance × cost of the unbiased ones where it does"
        found.append(Advice(label, reason))
    elif len(sizes) <= FEW and slopes:
        found.append(Advice(label, f"{len(sizes)} categoricals and a slope: little variance for few evaluations"))
    if slopes and not unbiased:
        found.append(Advice("reinmax", "one evaluation, little variance, and a bias that is small where f is smooth"))
    if slopes:
        found.append(Advice("double_cv", "unbiased, less variance than rloo at the same two evaluations"))
    found.append(Advice("rloo", "unbiased, two evaluations, needs nothing but values of f"))
    if not slopes:
        found.append(_without_slopes(sizes))
    return found[:3]


def _without_slopes(sizes: tuple[int, ...]) -> Advice:
    if set(sizes) == {2}:
        return Advice("disarm", "unbiased, an antithetic pair of samples for binary variables")
    return Advice("unordered", "unbiased, two different samples: less variance where few configurations are likely")


def _has_slopes(objective: Callable[[Sites], Tensor], logits: Sites, sizes: tuple[int, ...]) -> bool:
    dtype = logits[0].dtype if logits[0].dtype in (torch.float32, torch.float64) else torch.float32
    with torch.enable_grad():
        sample = [one_hot(s.detach().argmax(-1), k, dtype).requires_grad_() for s, k in zip(logits, sizes, strict=True)]
        value = adapt(objective, sizes, dtype)(tuple(sample))
        if not value.requires_grad:
            return False
        slopes = torch.autograd.grad(value.sum(), sample, allow_unused=True)
    return all(slope is not None for slope in slopes)


def _brings(objective: object, method: str) -> bool:
    """Whether an objective has a method of its own, and not the default."""
    own = getattr(objective, method, None)
    return own is not None and getattr(own, "__func__", None) is not getattr(Objective, method)
