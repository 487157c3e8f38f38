"""The Wide ResNet, with gates. It takes gates and never samples.

WRN-d-w has d = 6n + 4 layers: a 3×3 convolution to 16 channels, then three groups of n pre-activation blocks of two 3×3
convolutions, of 16w, 32w and 64w channels, then BN, ReLU, average pooling and a linear layer (Zagoruyko, Komodakis,
arXiv:1605.07146). For the depth task each block has such a head.

The mask m of a block sits on the hidden activations, after BN and ReLU and before the second convolution, where it is
the same as scaling that convolution's input weights, conv(m·a, W) = conv(a, W·m), in value and in every gradient. It is
folded there: no extra activation. (Folded into BN's affine parameters it would have no gradient where m_i = 0, since
relu'(0) = 0; before a train-mode BN a soft mask would be cancelled.)

In a relaxed pass, where no weight has a gradient and m_i > 0, it is folded into BN all the same, which is cheaper:
m relu(γ x + β) = relu(m γ x + m β). Where m_i has underflowed to 0 so has the probability of every width from i on,
and no slope at m_i reaches a logit.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vmo.config import WideResNetConfig, projects


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
    # channels last is the fast layout of convolutions on GPUs and on CPUs: 1.1 to 1.5 times here
    conv.weight = nn.Parameter(conv.weight.detach().contiguous(memory_format=torch.channels_last))
    return conv


def _bn_relu(
    bn: nn.BatchNorm2d, x: Tensor, momentum: float | None, width: int | None = None, mask: Tensor | None = None
) -> Tensor:
    """BN and ReLU on the first `width` channels, times a positive mask.

    `momentum` None: batch statistics, and the running ones stay.
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
    """What is to be summed, of a half-precision dtype in fp32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _pooled(x: Tensor) -> Tensor:
    """The mean over positions, `(B, C)`; what reaches x comes back channels last, which from mean((2, 3)) it does not,
    and a CPU then takes two to four times as long for all of a head."""
    return x.permute(0, 2, 3, 1).mean((1, 2))


class Block(nn.Module):
    """A pre-activation residual block with a gate on its hidden channels."""

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = _conv(inputs, hidden, 3, stride)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv2 = _conv(hidden, outputs, 3)
        self.shortcut = _conv(inputs, outputs, 1, stride) if projects(inputs, outputs, stride) else None

    def forward(self, x: Tensor, mask: Tensor | None, momentum: float | None, relaxed: bool = False) -> Tensor:
        residual, h = self._hidden(x, None, momentum, mask if relaxed else None)
        weight = self.conv2.weight
        if mask is not None and not relaxed:
            weight = weight * mask.view(1, -1, 1, 1)
        return residual + F.conv2d(h, weight, None, self.conv2.stride, self.conv2.padding)

    def sliced(self, x: Tensor, widths: Sequence[int], momentum: float | None) -> list[Tensor]:
        """What it puts out with each of some hidden widths, all different and ascending, from one pass of the widest.

        The hidden channels of a narrower one are the first of a wider one's, batch statistics included, and the second
        convolution is a sum over them, to which each width adds its own part.
        """
        residual, h = self._hidden(x, widths[-1], momentum, None)
        parts = [b - a for a, b in itertools.pairwise((0, *widths))]
        weights = self.conv2.weight[:, : widths[-1]].split(parts, 1)
        found, total = [], None
        for piece, weight in zip(h.split(parts, 1), weights, strict=True):
            more = F.conv2d(_channels_last(piece), weight, None, self.conv2.stride, self.conv2.padding)
            total = more if total is None else total + at_least_fp32(more)  # each part and each sum rounded once
            found.append(residual + total.to(more.dtype))
        return found

    def _hidden(
        self, x: Tensor, width: int | None, momentum: float | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What goes past the two convolutions, and the hidden channels."""
        a = _bn_relu(self.bn1, x, momentum)
        residual = x if self.shortcut is None else self.shortcut(a)
        h = F.conv2d(a, self.conv1.weight[:width], None, self.conv1.stride, self.conv1.padding)
        return residual, _bn_relu(self.bn2, h, momentum, width, mask)


class Head(nn.Module):
    """BN, ReLU, average pooling, linear."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs)
        self.linear = nn.Linear(inputs, classes)
        nn.init.kaiming_normal_(self.linear.weight, mode="fan_in", nonlinearity="linear")
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, momentum: float | None) -> Tensor:
        return self.linear(_pooled(_bn_relu(self.bn, x, momentum)))

    def forgetful(self, x: Tensor, momentum: float | None) -> Tensor:
        """The same, keeping nothing for the backward pass but x, which the next block keeps anyway.

        What BN and ReLU put out is as large as x and made again at once: with a head on every block it would be a fifth
        of all that a step keeps.
        """
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():  # a compiler decides for itself what to keep
            return self(x, momentum)

        def contexts() -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
            return contextlib.nullcontext(), _Aside(self.bn)

        again = checkpoint(self, x, momentum, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
        assert isinstance(again, Tensor)
        return again


class _Aside(contextlib.AbstractContextManager[None]):
    """While a pass is made again, it moves copies of the running statistics, which it moved the first time."""

    def __init__(self, bn: nn.BatchNorm2d) -> None:
        self.bn = bn

    def __enter__(self) -> None:
        self.kept = self.bn.running_mean, self.bn.running_var
        self.bn.running_mean, self.bn.running_var = (None if t is None else t.clone() for t in self.kept)

    def __exit__(self, *error: object) -> None:
        self.bn.running_mean, self.bn.running_var = self.kept


class WideResNet(nn.Module):
    """A Wide ResNet whose blocks take gates; without gates it is the plain network of its config."""

    def __init__(self, config: WideResNetConfig) -> None:
        super().__init__()
        self.config = config
        inputs = (16, *config.outputs[:-1])
        self.stem = _conv(config.channels, 16, 3)
        self.blocks = nn.ModuleList(map(Block, inputs, config.widths, config.outputs, config.strides))
        last = len(self.blocks) - 1
        # the last first: from one seed it then begins alike with and without the others
        order = range(last, -1, -1) if config.heads == "all" else [last]
        self.heads = nn.ModuleDict({str(i): Head(config.outputs[i], config.classes) for i in order})

    def forward(
        self,
        images: Tensor,
        *,
        masks: Sequence[Tensor] | None = None,
        every_head: bool = False,
        momentum: float | None = 0.1,
        relaxed: bool = False,
    ) -> Tensor:
        """Class logits `(B, classes)`, or `(heads, B, classes)` with `every_head`.

        Args:
            images: `(B, channels, H, W)`, normalised.
            masks: per block, gates `(hidden,)` on the hidden channels.
            every_head: all heads, from the first block to the last.
            momentum: of BN's running statistics in training mode; None leaves them alone.
            relaxed: the masks are positive, and the weights' gradients are not wanted.
        """
        outputs = []
        x = self._stem(images)
        for i, block in enumerate(self.blocks):
            x = block(x, masks[i] if masks else None, momentum, relaxed)
            if every_head:
                head = self.heads[str(i)]
                assert isinstance(head, Head)
                # the weights of a relaxed pass are lent for the call, and would be others when it is made again
                outputs.append(head(x, momentum) if relaxed else head.forgetful(x, momentum))
        return torch.stack(outputs) if every_head else self.heads[str(i)](x, momentum)

    def _stem(self, images: Tensor) -> Tensor:
        # of one channel there is no layout to follow, and all that came after would be of the slow one
        return _channels_last(self.stem(_channels_last(images)))

    def sliced(
        self,
        images: Tensor,
        networks: Sequence[tuple[int, ...]],
        *,
        visits: Visits | None = None,
        inputs: list[Tensor] | None = None,
    ) -> list[Tensor]:
        """Class logits `(B, classes)` of networks that keep so many hidden channels of each of so many first blocks.

        Each is what hard masks give, at less cost. Networks that begin alike are one network as far as they do, and
        pass through it once; the logits of equal ones are the same tensor. The running statistics of channels, blocks
        and heads that none of them has stay as they are.

        Args:
            images: `(B, channels, H, W)`, normalised.
            networks: the hidden channels of each block that a network has.
            visits: of all that moves running statistics together with this call; None leaves them alone.
            inputs: receives what each block of a single network takes in, and at last what its head does, detached:
                see `others`.
        """
        assert inputs is None or len(networks) == 1
        return self._along(self._stem(images), networks, visits, inputs)

    @torch.no_grad()
    def others(
        self, networks: Sequence[tuple[int, ...]], base: tuple[int, ...], inputs: Sequence[Tensor]
    ) -> list[Tensor]:
        """`sliced`, without gradients, on images that a base network has seen: no block that a network has in common
        with the base from the beginning on is computed again. Running statistics stay as they are.

        Args:
            networks: see `sliced`.
            base: the hidden channels of each block of the base.
            inputs: what the call of the base put there, see `sliced`.
        """
        return self._along(inputs[0], networks, None, None, base, inputs)

    def _along(
        self,
        x: Tensor,
        networks: Sequence[tuple[int, ...]],
        visits: Visits | None,
        taken: list[Tensor] | None,
        base: tuple[int, ...] = (),
        inputs: Sequence[Tensor] = (),
    ) -> list[Tensor]:
        """The logits of each network from the input of the first block on, see `sliced` and `others`."""
        found: dict[int, Tensor] = {}

        def descend(x: Tensor, depth: int, members: Sequence[int], known: bool) -> None:
            """From the input of a block on, of the networks that have come to it by the same way."""
            branches: dict[int, list[int]] = {}
            for n in members:
                branches.setdefault(networks[n][depth], []).append(n)
            common = base[depth] if known and depth < len(base) else None
            outputs: dict[int, Tensor] = {}
            if widths := sorted(branches.keys() - {common}):
                momentum = None if visits is None else visits.block(depth, sum(len(branches[w]) for w in widths))
                block = self.blocks[depth]
                assert isinstance(block, Block)
                outputs.update(zip(widths, block.sliced(x, widths, momentum), strict=True))
            if common is not None and common in branches:
                outputs[common] = inputs[depth + 1]
            if taken is not None:
                taken.append(outputs[widths[0]].detach())
            for width in list(outputs):
                out = outputs.pop(width)  # and nothing else keeps it when its networks have been passed
                ends = [n for n in branches[width] if len(networks[n]) == depth + 1]
                rest = [n for n in branches[width] if len(networks[n]) > depth + 1]
                if ends:
                    head = self.heads[str(depth)]
                    assert isinstance(head, Head)
                    momentum = None if visits is None else visits.head(depth + 1, len(ends))
                    found.update(dict.fromkeys(ends, (head.forgetful if rest else head)(out, momentum)))
                if rest:
                    descend(out, depth + 1, rest, width == common)

        if taken is not None:
            taken.append(x.detach())
        descend(x, 0, range(len(networks)), bool(inputs))
        return [found[n] for n in range(len(networks))]


class Visits:
    """By how much each pass moves BN's running statistics, where several networks move them together.

    They end at (1 − m) old + m · mean over the networks that have the block, or the head, however many of them share a
    pass. A channel moves at each pass whose widest network has it, by the share of all networks of that pass, and stays
    at the others; by how much it moves in all depends on their order.

    Args:
        networks: all of them, see `WideResNet.sliced`.
        momentum: m.
    """

    def __init__(self, networks: Sequence[tuple[int, ...]], momentum: float) -> None:
        depths = [len(network) for network in networks]
        self.momentum = momentum
        self._blocks = [sum(d > i for d in depths) for i in range(max(depths))]
        self._heads = [sum(d == i for d in depths) for i in range(max(depths) + 1)]
        self._to_come = {"block": list(self._blocks), "head": list(self._heads)}

    def block(self, depth: int, members: int) -> float:
        """The momentum of a pass of so many networks through the block at a depth that counts from 0."""
        return self._next("block", self._blocks[depth], depth, members)

    def head(self, depth: int, members: int) -> float:
        """The same, of the head after so many blocks."""
        return self._next("head", self._heads[depth], depth, members)

    def _next(self, what: str, total: int, depth: int, members: int) -> float:
        self._to_come[what][depth] -= members
        share = self.momentum / total
        return members * share / (1 - self._to_come[what][depth] * share)
