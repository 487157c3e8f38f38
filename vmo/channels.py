"""Hidden channels of a Wide ResNet: which of them fit a budget, their order, and factors folded into the weights.

A hidden channel of a block is a row of its first convolution, an entry of its second BN, and a column of its second
convolution W. Channels can be put in any order without a change of the network's output. A factor z on a channel, after
BN and ReLU, is the same as scaling its column: conv(z·a, W) = conv(a, z·W). So a network that keeps any channels, with
any factors, equals one that keeps the *first* channels of every block, which `vmo.extract` cuts out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from vmo.config import WideResNetConfig
from vmo.layers import Block
from vmo.wrn import WideResNet


def largest(config: WideResNetConfig, size: int, scores: Sequence[Tensor], ratio: float) -> tuple[int, ...]:
    """How many channels each block keeps if those with the largest scores are kept, up to a budget.

    The best channel of every block is kept. The others follow by descending score, over all blocks. As many are kept
    as bring the cost nearest to the budget. One channel more or less changes the cost by at most its own cost, so the
    budget is missed by at most half of the cost of the dearest channel.

    Args:
        config: the full network.
        size: height and width of an image, in pixels.
        scores: `(hidden,)` for each block.
        ratio: the budget: multiply-accumulates (MACs) as a fraction of the full network's.
    """
    rest, fixed, slope = config.macs(size)
    total = config.total_macs(size)
    ranked = [values.detach().double().cpu().sort(descending=True, stable=True).values for values in scores]
    values = torch.cat([one[1:] for one in ranked])
    block = torch.cat([torch.full((len(one) - 1,), i) for i, one in enumerate(ranked)])
    order = values.argsort(descending=True, stable=True)
    least = rest + sum(fixed) + sum(slope)
    spent = torch.tensor(slope, dtype=torch.float64)[block[order]].cumsum(0)
    costs = (torch.cat([torch.zeros(1, dtype=torch.float64), spent]) + least) / total
    count = int((costs - ratio).abs().argmin())
    kept = 1 + block[order[:count]].bincount(minlength=len(ranked))
    return tuple(int(n) for n in kept)


@torch.no_grad()
def sort(network: WideResNet, scores: Sequence[Tensor], optimizer: torch.optim.Optimizer | None = None) -> None:
    """Put the channels of every block in descending order of their scores, in place. The output does not change.

    Args:
        network: the network.
        scores: `(hidden,)` for each block.
        optimizer: of the network's parameters; its state moves with them.
    """
    for block, values in zip(blocks(network), scores, strict=True):
        order = values.detach().argsort(descending=True, stable=True)
        for tensor, dim in _parts(block):
            for one in (tensor, *_state(optimizer, tensor)):
                one.copy_(one.index_select(dim, order))


@torch.no_grad()
def fold(network: WideResNet, factors: Sequence[Tensor]) -> None:
    """Multiply every hidden channel by a factor, in place.

    Args:
        network: the network.
        factors: `(hidden,)` for each block.
    """
    for block, values in zip(blocks(network), factors, strict=True):
        block.conv2.weight.mul_(values.detach().view(1, -1, 1, 1))


def blocks(network: WideResNet) -> Iterator[Block]:
    """The network's blocks."""
    for block in network.blocks:
        assert isinstance(block, Block)
        yield block


def _parts(block: Block) -> list[tuple[Tensor, int]]:
    """The tensors that have a dimension of hidden channels, and that dimension."""
    bn = block.bn2
    assert bn.running_mean is not None and bn.running_var is not None
    vectors = (bn.weight, bn.bias, bn.running_mean, bn.running_var)
    return [(block.conv1.weight, 0), *((vector, 0) for vector in vectors), (block.conv2.weight, 1)]


def _state(optimizer: torch.optim.Optimizer | None, tensor: Tensor) -> list[Tensor]:
    """The optimizer's tensors for a parameter, of its shape."""
    if optimizer is None or not isinstance(tensor, nn.Parameter):
        return []
    found = optimizer.state.get(tensor, {}).values()
    return [one for one in found if isinstance(one, Tensor) and one.shape == tensor.shape]
