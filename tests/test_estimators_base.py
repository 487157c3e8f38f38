"""What turns any callable into an objective, and what trains weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from estimators import Objective
from estimators.base import train_weights
from estimators.objective import Sites, adapt

SAMPLE = (torch.tensor([[0.25, 0.75], [1.0, 0.0]]),)
INDEX = (torch.tensor([1, 0]),)


def first(sample: Sites) -> Tensor:
    return sample[0][..., 0]


class Defaults(Objective):
    """Takes every default of the Protocol."""

    def __call__(self, sample: Sites, /) -> Tensor:
        return first(sample)


class Partial:
    """Brings `hard` and `part`, and no `control`."""

    def __call__(self, sample: Sites) -> Tensor:
        return first(sample)

    def hard(self, index: Sites) -> Tensor:
        return 10.0 + index[0]

    def part(self, i: int, n: int) -> Partial | None:
        return Partial() if n <= 4 else None


@pytest.mark.parametrize("objective", [first, Defaults(), lambda sample: first(sample), torch.nn.Identity()])
def test_any_callable_is_an_objective(objective: object) -> None:
    if isinstance(objective, torch.nn.Identity):
        objective.forward = first  # type: ignore[method-assign, assignment]
    adapted = adapt(objective, (2,), torch.float32)  # type: ignore[arg-type]
    for value in (adapted(SAMPLE), adapted.control(SAMPLE)):
        torch.testing.assert_close(value, torch.tensor([0.25, 1.0]))
    torch.testing.assert_close(adapted.hard(INDEX), torch.tensor([0.0, 1.0]))
    assert adapted.part(0, 2) is None


def test_what_an_objective_brings_is_used() -> None:
    adapted = adapt(Partial(), (2,), torch.float32)
    torch.testing.assert_close(adapted.hard(INDEX), torch.tensor([11.0, 10.0]))
    torch.testing.assert_close(adapted.control(SAMPLE), torch.tensor([0.25, 1.0]))
    piece = adapted.part(1, 4)
    assert piece is not None
    torch.testing.assert_close(piece.control(SAMPLE), torch.tensor([0.25, 1.0]))
    assert adapted.part(1, 8) is None


def test_the_protocol_s_control_is_the_objective() -> None:
    torch.testing.assert_close(Defaults().control(SAMPLE), torch.tensor([0.25, 1.0]))
    assert Defaults().part(0, 2) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_hot_samples_have_the_dtype_asked_for(dtype: torch.dtype) -> None:
    seen = []
    adapt(lambda sample: seen.append(sample[0].dtype) or first(sample), (2,), dtype).hard(INDEX)
    assert seen == [dtype]


def test_leading_dimensions_broadcast() -> None:
    """One site may bring fewer leading dimensions than another; the value has them all."""

    class AsTheyCome:
        broadcasts = True

        def __init__(self, f: Callable[[Sites], Tensor]) -> None:
            self.f = f

        def __call__(self, sample: Sites) -> Tensor:
            return self.f(sample)

    sample = (torch.rand(4, 1, 3, 2), torch.rand(5, 3, 2))
    adapted = adapt(AsTheyCome(lambda s: s[0][..., 0] + s[1][..., 0]), (2, 2), torch.float32)
    assert adapted(sample).shape == (4, 5, 3)
    with pytest.raises(ValueError, match=r"must give \(4, 5, 3\), one value per sample, got \(4, 1, 3\)"):
        adapt(AsTheyCome(lambda s: s[0][..., 0]), (2, 2), torch.float32)(sample)
    assert adapt(lambda s: s[0][..., 0], (2, 2), torch.float32)(sample).shape == (4, 5, 3)


def test_train_weights_weighs_and_skips_what_has_no_graph() -> None:
    weight = torch.tensor(2.0, requires_grad=True)
    values = weight * torch.tensor([1.0, 10.0])
    train_weights(values, torch.tensor([0.5, 0.25]))
    assert float(weight.grad) == pytest.approx(3.0)  # type: ignore[arg-type]
    train_weights(weight * torch.ones(3, 2), 0.5)
    assert float(weight.grad) == pytest.approx(6.0)  # type: ignore[arg-type]
    train_weights(torch.ones(3))
