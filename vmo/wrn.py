"""The Wide ResNet, with gates. It takes gates and never samples.

WRN-d-w has d = 6n + 4 layers: a 3×3 convolution to 16 channels, then three groups of n pre-activation blocks of two 3×3
convolutions, of 16w, 32w and 64w channels, then BN, ReLU, average pooling and a linear layer (Zagoruyko, Komodakis,
arXiv:1605.07146). For the depth task each block has such a head. Blocks and heads: `vmo.layers`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vmo.config import WideResNetConfig
from vmo.layers import Block, Head, channels_last, convolution


class WideResNet(nn.Module):
    """A Wide ResNet whose blocks take gates; without gates it is the plain network of its config."""

    def __init__(self, config: WideResNetConfig) -> None:
        super().__init__()
        self.config = config
        inputs = (16, *config.outputs[:-1])
        self.stem = convolution(config.channels, 16, 3)
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
        return channels_last(self.stem(channels_last(images)))

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
