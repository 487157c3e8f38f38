"""`pick`: which estimators to try first, from what an objective can do."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import estimators
from suites.labels import parse


def smooth(sample: Sequence[Tensor]) -> Tensor:
    return sum(site[..., 0] for site in sample) ** 2  # type: ignore[return-value]


def looked_up(sample: Sequence[Tensor]) -> Tensor:
    return sum(site.argmax(-1) for site in sample).float()  # type: ignore[union-attr,return-value]


class Cheap:
    """An objective that evaluates neighbours of a sample by itself."""

    def __call__(self, sample: Sequence[Tensor]) -> Tensor:
        return smooth(sample)

    def around(self, index: Sequence[Tensor], others: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


def names(objective: object, sizes: Sequence[int], **options: bool) -> list[str]:
    return [one.estimator for one in estimators.pick(objective, [torch.zeros(k) for k in sizes], **options)]  # type: ignore[arg-type]


MANY = (5,) * 20


def test_what_an_objective_can_do_decides() -> None:
    assert names(smooth, (3, 4))[:2] == ["exact", "measure_valued"]
    assert names(looked_up, (3, 4))[0] == "exact"
    assert names(smooth, MANY) == ["reinmax", "double_cv", "rloo"]
    assert names(smooth, (5,) * 6)[0] == "sweep"
    assert names(looked_up, MANY) == ["rloo", "unordered"]
    assert names(looked_up, (2,) * 20) == ["rloo", "disarm"]
    assert names(Cheap(), MANY)[0] == "sweep"


@pytest.mark.parametrize("objective", [smooth, looked_up, Cheap()])
@pytest.mark.parametrize("sizes", [(3, 4), MANY, (2,) * 20, (7,)])
@pytest.mark.parametrize("unbiased", [False, True])
def test_advice_is_two_or_three_estimators_that_work(objective: object, sizes: tuple[int, ...], unbiased: bool) -> None:
    found = names(objective, sizes, unbiased=unbiased)
    assert 2 <= len(found) <= 3
    for label in found:
        made = parse(label).make(sizes)
        assert made.unbiased or not unbiased
        logits = [torch.zeros(k, requires_grad=True) for k in sizes]
        if objective is not looked_up and not isinstance(objective, Cheap):
            made.backward(objective, logits)  # type: ignore[arg-type]


def test_every_advice_has_a_reason_in_one_line() -> None:
    for one in estimators.pick(smooth, [torch.zeros(3)] * 6):
        assert one.reason
        assert "\n" not in one.reason
