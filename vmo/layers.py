"""Blocks and heads of a gated Wide ResNet.

The mask m of a block multiplies the hidden activations, after BN and ReLU and before the second convolution. This
equals scaling that convolution's input weights, conv(m·a, W) = conv(a, W·m), in value and in all gradients. So the mask
is folded into the weights, which needs no extra activation. (Folded into BN's affine parameters it would have no
gradient where m_i = 0, because relu'(0) = 0. Before a BN in training mode a soft mask would be normalised away.)

In a relaxed pass weights need no gradient and m_i > 0. There the mask is folded into BN after all, which is cheaper:
m relu(γ x + β) = relu(m γ x + m β). If m_i has underflowed to 0, so has the probability of every width from i on, and
the slope at m_i does not reach a logit.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vmo.config import projects


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
    # channels last is the faster layout for convolutions, on GPUs and CPUs: by 1.1 to 1.5 times here
    conv.weight = nn.Parameter(conv.weight.detach().contiguous(memory_format=torch.channels_last))
    return conv


def bn_relu(
    bn: nn.BatchNorm2d, x: Tensor, momentum: float | None, width: int | None = None, mask: Tensor | None = None
) -> Tensor:
    """BN and ReLU on the first `width` channels, times a positive mask.

    With `momentum` None, batch statistics are used in training mode and the running statistics do not change.
    """
    if bn.training and momentum is None:
        mean = var = None
    else:
        mean, var = bn.running_mean, bn.running_var
        assert mean is not None and var is not None
        mean, var = mean[:width], var[:width]
    weight, bias = bn.weight[:width], bn.bias[:width]
    if mask is not None:
        weight, bias = weight * mask, bias * mask
    return F.relu(F.batch_norm(x, mean, var, weight, bias, bn.training, momentum or 0.0, bn.eps))


def at_least_fp32(x: Tensor) -> Tensor:
    """Half precision converted to fp32, other dtypes unchanged, for sums."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def pooled(x: Tensor) -> Tensor:
    """The mean over positions, `(B, C)`. Its gradient in x is channels last. That of mean((2, 3)) is not, and the head
    then takes two to four times as long on a CPU."""
    return x.permute(0, 2, 3, 1).mean((1, 2))


class Block(nn.Module):
    """A pre-activation residual block with a gate on its hidden channels."""

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = convolution(inputs, hidden, 3, stride)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv2 = convolution(hidden, outputs, 3)
        self.shortcut = convolution(inputs, outputs, 1, stride) if projects(inputs, outputs, stride) else None

    def forward(self, x: Tensor, mask: Tensor | None, momentum: float | None, relaxed: bool = False) -> Tensor:
        residual, h = self._hidden(x, None, momentum, mask if relaxed else None)
        weight = self.conv2.weight
        if mask is not None and not relaxed:
            weight = weight * mask.view(1, -1, 1, 1)
        return residual + F.conv2d(h, weight, None, self.conv2.stride, self.conv2.padding)

    def sliced(self, x: Tensor, widths: Sequence[int], momentum: float | None) -> list[Tensor]:
        """The block's output for each of several hidden widths (distinct, ascending), from one pass with the widest.

        The hidden channels of a narrower width are the first of a wider one, with the same batch statistics. The second
        convolution is a sum over hidden channels, so each width adds its further channels to the sum before.
        """
        residual, h = self._hidden(x, widths[-1], momentum, None)
        parts = [b - a for a, b in itertools.pairwise((0, *widths))]
        weights = self.conv2.weight[:, : widths[-1]].split(parts, 1)
        found, total = [], None
        for piece, weight in zip(h.split(parts, 1), weights, strict=True):
            more = F.conv2d(channels_last(piece), weight, None, self.conv2.stride, self.conv2.padding)
            total = more if total is None else total + at_least_fp32(more)  # sum in fp32, so that each is rounded once
            found.append(residual + total.to(more.dtype))
        return found

    def _hidden(
        self, x: Tensor, width: int | None, momentum: float | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The shortcut, and the hidden channels after BN and ReLU."""
        a = bn_relu(self.bn1, x, momentum)
        residual = x if self.shortcut is None else self.shortcut(a)
        h = F.conv2d(a, self.conv1.weight[:width], None, self.conv1.stride, self.conv1.padding)
        return residual, bn_relu(self.bn2, h, momentum, width, mask)


class Head(nn.Module):
    """BN, ReLU, average pooling, linear."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs)
        self.linear = nn.Linear(inputs, classes)
        nn.init.kaiming_normal_(self.linear.weight, mode="fan_in", nonlinearity="linear")
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, momentum: float | None) -> Tensor:
        return self.linear(pooled(bn_relu(self.bn, x, momentum)))

    def forgetful(self, x: Tensor, momentum: float | None) -> Tensor:
        """The same as `forward`, but stores only x for the backward pass, which the next block stores anyway.

        The output of BN and ReLU is as large as x and cheap to recompute. With a head on every block it would be a
        fifth of the memory that a step stores.
        """
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():  # a compiler decides itself what to store
            return self(x, momentum)

        def contexts() -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
            return contextlib.nullcontext(), _Aside(self.bn)

        again = checkpoint(self, x, momentum, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
        assert isinstance(again, Tensor)
        return again


class _Aside(contextlib.AbstractContextManager[None]):
    """While a pass is recomputed, lets it update copies of the running statistics, which the first pass has updated."""

    def __init__(self, bn: nn.BatchNorm2d) -> None:
        self.bn = bn

    def __enter__(self) -> None:
        self.kept = self.bn.running_mean, self.bn.running_var
        self.bn.running_mean, self.bn.running_var = (None if t is None else t.clone() for t in self.kept)

    def __exit__(self, *error: object) -> None:
        self.bn.running_mean, self.bn.running_var = self.kept
