"""Hidden channels: the largest within a budget, their order, and factors folded into weights."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vmo import channels
from vmo.config import WideResNetConfig
from vmo.extract import extract
from vmo.space import Architecture
from vmo.wrn import WideResNet

CONFIG = WideResNetConfig(10, 1, channels=1)
SIZE = 8


def network() -> WideResNet:
    """A network whose BN layers are not at their initial values."""
    torch.manual_seed(0)
    made = WideResNet(CONFIG)
    for name, tensor in made.state_dict().items():
        if tensor.dim() == 1 and "linear" not in name:
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    return made.eval()


def scores(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(k, generator=generator) for k in CONFIG.widths]


def images(n: int = 6) -> Tensor:
    return torch.randn(n, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@given(st.integers(0, 10**6), st.floats(0.05, 1.0))
def test_the_largest_are_kept_and_the_budget_is_met(seed: int, ratio: float) -> None:
    values = scores(seed)
    kept = channels.largest(CONFIG, SIZE, values, ratio)
    ranked = [one.sort(descending=True).values for one in values]
    assert all(1 <= k <= len(one) for k, one in zip(kept, ranked, strict=True))
    inside = [one[1:k] for k, one in zip(kept, ranked, strict=True)]  # the best of a block is kept in any case
    outside = [one[k:] for k, one in zip(kept, ranked, strict=True)]
    if torch.cat(inside).numel() and torch.cat(outside).numel():
        assert torch.cat(inside).min() >= torch.cat(outside).max()

    def cost(widths: tuple[int, ...]) -> float:
        architecture = WideResNetConfig(10, 1, channels=1, hidden=widths)
        return architecture.total_macs(SIZE) / CONFIG.total_macs(SIZE)

    least, dearest = cost((1, 1, 1)), max(CONFIG.macs(SIZE)[2]) / CONFIG.total_macs(SIZE)
    assert abs(cost(kept) - max(ratio, least)) <= dearest / 2 + 1e-9


def test_the_cost_is_that_of_the_kept_channels() -> None:
    values = [torch.zeros(k) for k in CONFIG.widths]
    values[1][5:12] = 1.0
    values[2][7] = 2.0
    ratio = WideResNetConfig(10, 1, channels=1, hidden=(1, 7, 1)).total_macs(SIZE) / CONFIG.total_macs(SIZE)
    assert channels.largest(CONFIG, SIZE, values, ratio) == (1, 7, 1)


def test_the_order_of_channels_does_not_change_the_output() -> None:
    made, before = network(), network()
    channels.sort(made, scores(0))
    assert not torch.equal(made.blocks[0].conv1.weight, before.blocks[0].conv1.weight)
    torch.testing.assert_close(made(images()), before(images()), rtol=1e-4, atol=1e-4)
    bn = made.blocks[2].bn2  # type: ignore[union-attr]
    assert isinstance(bn, torch.nn.BatchNorm2d)
    order = scores(0)[2].argsort(descending=True)
    assert torch.equal(bn.weight, before.blocks[2].bn2.weight[order])  # type: ignore[union-attr]


def test_a_network_with_any_gates_is_a_compact_one() -> None:
    """Masks that keep some channels, with factors, against weights with folded factors, sorted and cut."""
    made, values = network(), scores(3)
    kept = channels.largest(CONFIG, SIZE, values, 0.5)
    factors = [torch.rand(len(one), generator=torch.Generator().manual_seed(4)) for one in values]
    masks = []
    for k, one, factor in zip(kept, values, factors, strict=True):
        mask = torch.zeros_like(one)
        mask[one.topk(k).indices] = factor[one.topk(k).indices]
        masks.append(mask)
    expected = made(images(), masks=masks)
    channels.fold(made, factors)
    channels.sort(made, values)
    compact = extract(made, Architecture(len(kept), kept))
    assert compact.config.hidden == kept
    torch.testing.assert_close(compact(images()), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_optimizer_moves_with_the_channels(momentum: float) -> None:
    """To sort and to train on is to train on and to sort."""
    made, values = network().train().double(), [one.double() for one in scores(5)]
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1, momentum=momentum, nesterov=momentum > 0)

    def step(network: WideResNet, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(images().double()), torch.arange(6)).backward()
        optimizer.step()

    step(made, optimizer)
    other = copy.deepcopy(made)
    another = torch.optim.SGD(other.parameters(), lr=0.1, momentum=momentum, nesterov=momentum > 0)
    another.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(made, optimizer)
    channels.sort(made, values)
    channels.sort(other, values, another)
    step(other, another)
    for one, two in zip(made.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two)
