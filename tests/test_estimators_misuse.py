"""Calls that cannot do what is wanted of them say so; calls that mean something else than usual still work."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from oracles import seeded
from torch import Tensor

import estimators
from estimators.base import Temperature
from vmo.learner import Learner

SIZES = (3, 2)


def first(sample: Any) -> Tensor:
    value: Tensor = sample[0] @ torch.arange(3, dtype=sample[0].dtype)
    return value


def test_backward_to_logits_that_do_not_require_grad_is_refused() -> None:
    with pytest.raises(ValueError, match="no logits require grad"):
        estimators.get("rloo", (3,)).backward(first, (torch.zeros(3),))


@pytest.mark.parametrize("name", ["rloo", "concrete", "exact"])
def test_backward_by_habit_is_told_that_it_is_done(name: str) -> None:
    logits = (torch.zeros(3, requires_grad=True), torch.zeros(2, requires_grad=True))
    f = lambda sample: sample[0][..., 0] * sample[1][..., 1]  # noqa: E731
    loss = estimators.get(name, SIZES).backward(f, logits, generator=seeded())
    before = [site.grad.clone() for site in logits if site.grad is not None]
    with pytest.raises(RuntimeError, match="is backpropagated already: leave out this call"):
        loss.backward()
    assert all(torch.equal(was, site.grad) for was, site in zip(before, logits, strict=True))  # type: ignore[arg-type]


def test_one_site_that_requires_grad_is_enough() -> None:
    logits = (torch.zeros(3, requires_grad=True), torch.zeros(2))
    estimators.get("exact", SIZES).backward(first, logits)
    assert logits[0].grad is not None and float(logits[0].grad.abs().sum()) > 0
    assert logits[1].grad is None


def test_a_learner_estimates_at_logits_that_receive_nothing() -> None:
    learner = Learner({}, {}, estimator=estimators.get("rloo", SIZES), control_lr=0.1, generators={"noise": seeded()})
    assert learner.estimate(first, (torch.zeros(3), torch.zeros(2))).isfinite()


@pytest.mark.parametrize(
    "sizes", [(3, 2), [3, 2], torch.Size((3, 2)), (np.int64(3), np.int32(2)), np.array([3, 2]), torch.tensor([3, 2])]
)
@pytest.mark.parametrize("name", estimators.available())
def test_sizes_may_be_integers_of_any_kind_and_positional(name: str, sizes: Any) -> None:
    estimator = estimators.get(name, sizes)
    assert estimator.sizes == (3, 2) and all(type(size) is int for size in estimator.sizes)
    logits = (torch.zeros(3, requires_grad=True), torch.zeros(2, requires_grad=True))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* has no slope in sites 1 ")  # f has none in the second site
        assert estimator.backward(first, logits, generator=seeded()).isfinite()


@pytest.mark.parametrize("sizes", [4, 4.0, None, "34", np.int64(4)])
def test_sizes_that_are_no_sequence_are_refused(sizes: Any) -> None:
    with pytest.raises(ValueError, match=r"^sizes must be a sequence, the number of categories of each site, got "):
        estimators.get("rloo", sizes)


@pytest.mark.parametrize("sizes", [(), (0,), (3, -1), (2.0,), ("3",), (None,)])
def test_sizes_without_a_site_or_a_category_are_refused(sizes: Any) -> None:
    with pytest.raises(ValueError, match=r"^sizes must name at least one site of at least one category, got "):
        estimators.get("rloo", sizes)


def test_a_temperature_is_exact_in_float64() -> None:
    temperature = Temperature(1.3)
    assert float(temperature((torch.zeros(2, dtype=torch.float64),))) == 1.3
    temperature.anneal(0.5)
    assert float(temperature((torch.zeros(2, dtype=torch.float64),))) == 1.3
    assert temperature((torch.zeros(2),)).dtype == torch.float32
    assert torch.equal(temperature((torch.zeros(2),)), torch.tensor(1.3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_concrete_estimate_is_that_of_the_temperature_asked_for(dtype: torch.dtype) -> None:
    logits = (torch.randn(50, 3, generator=seeded(1), dtype=torch.float64).to(dtype),)
    estimator = estimators.get("concrete", (3,), temperature=1.3)
    noise = estimator.draw(logits, seeded())
    got = estimator.estimate(first, logits, noise).grads[0]
    phi = logits[0].clone().requires_grad_()
    first((torch.softmax((phi - torch.log(-torch.log(noise[0]))) / 1.3, -1),)).sum().backward()
    assert phi.grad is not None
    torch.testing.assert_close(got, phi.grad, rtol=1e-12 if dtype == torch.float64 else 1e-4, atol=1e-14)
    assert got.dtype == dtype
