"""Two layers of choices, the second of which depends on the sample of the first: a surrogate inside an objective."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from oracles import check_means, seeded
from test_contract import OPTIONS, name_of
from torch import Tensor

import estimators

SIZES = (3, 2)
ROWS = 4000
RANDOM = seeded(3)
PHI = tuple(torch.randn(k, generator=RANDOM, dtype=torch.float64) for k in SIZES)
WEIGHT = torch.randn(5, 5, generator=RANDOM, dtype=torch.float64)
"""From a sample of the first layer to the logits of the second."""
TABLE = torch.randn(*SIZES, *SIZES, generator=RANDOM, dtype=torch.float64)
SCALE = torch.tensor(1.3, dtype=torch.float64)
"""A weight of the objective."""


def objective(z1: Sequence[Tensor], z2: Sequence[Tensor], scale: Tensor) -> Tensor:
    y = torch.einsum("...a,...b,...c,...d,abcd->...", *z1, *z2, TABLE)
    return (scale * y).square() + y


def second_logits(z1: Sequence[Tensor], weight: Tensor) -> tuple[Tensor, ...]:
    """`weight` is `(*rows, 5, 5)`."""
    return torch.einsum("...i,...ij->...j", torch.cat(tuple(z1), -1), weight).split(SIZES, -1)


def truth() -> Tensor:
    """The gradient of E f in the logits of the first layer, the weights between the layers, and the scale."""
    phi = [site.clone().requires_grad_() for site in PHI]
    weight, scale = WEIGHT.clone().requires_grad_(), SCALE.clone().requires_grad_()
    p1, total = [torch.softmax(site, -1) for site in phi], torch.zeros((), dtype=torch.float64)
    corners = [torch.eye(k, dtype=torch.float64) for k in SIZES]
    for a, b in itertools.product(*map(range, SIZES)):
        z1 = (corners[0][a], corners[1][b])
        p2 = [torch.softmax(site, -1) for site in second_logits(z1, weight)]
        for c, d in itertools.product(*map(range, SIZES)):
            chance = p1[0][a] * p1[1][b] * p2[0][c] * p2[1][d]
            total = total + chance * objective(z1, (corners[0][c], corners[1][d]), scale)
    return torch.cat([g.flatten() for g in torch.autograd.grad(total, [*phi, weight, scale])])


def estimate(outer: Any, inner: Any, surrogate: bool) -> Tensor:
    """As `truth`, one estimate in each row; with `backward`, or with a surrogate of a surrogate."""
    first, second = (estimators.get(name, sizes=SIZES, **options) for name, options in (outer, inner))
    phi = [site.expand(ROWS, -1).clone().requires_grad_() for site in PHI]
    weight, scale = (w.expand(ROWS, *w.shape).clone().requires_grad_() for w in (WEIGHT, SCALE))
    noise = seeded(1)

    def layer(z1: Sequence[Tensor]) -> Tensor:
        return estimators.surrogate(
            second, lambda z2: objective(z1, z2, scale), second_logits(z1, weight), generator=noise
        )

    if surrogate:
        estimators.surrogate(first, layer, phi, generator=noise).sum().backward()
    else:
        first.backward(layer, phi, generator=noise)
    grads = [leaf.grad for leaf in (*phi, weight, scale)]
    return torch.cat([g.reshape(ROWS, -1) for g in grads if g is not None], -1)


def _unbiased() -> list[tuple[str, dict[str, Any]]]:
    cases = [*((name, {}) for name in estimators.available()), *OPTIONS]
    made = ((case, estimators.get(case[0], sizes=SIZES, **case[1])) for case in cases)
    return [case for case, estimator in made if estimator.unbiased]


UNBIASED = _unbiased()
RLOO: tuple[str, dict[str, Any]] = ("rloo", {})


@pytest.mark.parametrize("case", UNBIASED, ids=name_of)
def test_an_unbiased_estimator_of_the_first_layer_stays_unbiased(case: Any) -> None:
    check_means(estimate(case, RLOO, surrogate=True), truth())


@pytest.mark.parametrize("case", UNBIASED, ids=name_of)
def test_an_unbiased_estimator_of_the_second_layer_stays_unbiased(case: Any) -> None:
    check_means(estimate(RLOO, case, surrogate=True), truth())


@pytest.mark.parametrize("outer", ["rloo", "rebar", "relax", "sweep", "exact"])
def test_backward_outside_gives_what_a_surrogate_outside_does(outer: str) -> None:
    found = [estimate((outer, {}), RLOO, surrogate=which) for which in (True, False)]
    torch.testing.assert_close(*found)


def test_what_is_biased_is_seen_to_be() -> None:
    """The check has the power to reject, in either place."""
    for outer, inner in ((("straight_through", {}), RLOO), (RLOO, ("straight_through", {}))):
        with pytest.raises(AssertionError, match="expected"):
            check_means(estimate(outer, inner, surrogate=True), truth())
