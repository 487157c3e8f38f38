"""The Wide ResNet with gates. Gates are its input; it never samples.

WRN-d-w has d = 6n + 4 layers: a 3×3 convolution to 16 channels, then three groups of n pre-activation blocks with two
3×3 convolutions each and 16w, 32w and 64w channels, then a head: BN, ReLU, average pooling and a linear layer
(Zagoruyko, Komodakis, arXiv:1605.07146). For the depth task each block has a head. Blocks and heads: `vmo.layers`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vmo.config import WideResNetConfig
from vmo.layers import Block, Head, channels_last, convolution


class WideResNet(nn.Module):
    """A Wide ResNet whose blocks accept gates; without gates it is the plain network of its config."""

    def __init__(self, config: WideResNetConfig) -> None:
        super().__init__()
        self.config = config
        inputs = (16, *config.outputs[:-1])
        self.stem = convolution(config.channels, 16, 3)
        self.blocks = nn.ModuleList(map(Block, inputs, config.widths, config.outputs, config.strides))
        last = len(self.blocks) - 1
        # the last head first: for a given seed its initial weights are then the same with and without the other heads
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
            masks: for each block, gates `(hidden,)` on the hidden channels.
            every_head: return the logits of all heads, from the first block to the last.
            momentum: of BN's running statistics in training mode; None does not update them.
            relaxed: promises that masks are positive and that no gradients of weights are needed.
        """
        outputs = []
        x = self._stem(images)
        for i, block in enumerate(self.blocks):
            x = block(x, masks[i] if masks else None, momentum, relaxed)
            if every_head:
                head = self.heads[str(i)]
                assert isinstance(head, Head)
                # no recomputation in a relaxed pass: functional_call has swapped the weights back by then
                outputs.append(head(x, momentum) if relaxed else head.forgetful(x, momentum))
        return torch.stack(outputs) if every_head else self.heads[str(i)](x, momentum)

    def _stem(self, images: Tensor) -> Tensor:
        # with one input channel the layout is ambiguous, and the output might get the slow one: convert again
        return channels_last(self.stem(channels_last(images)))

    def sliced(
        self,
        images: Tensor,
        networks: Sequence[tuple[int, ...]],
        *,
        visits: Visits | None = None,
        inputs: list[Tensor] | None = None,
    ) -> list[Tensor]:
        """Class logits `(B, classes)` of several sub-networks: the first blocks, the first hidden channels of each.

        The result is that of hard masks, at less cost. The blocks that networks have in common from the first one on
        are computed once. Equal networks return the same tensor. Running statistics of channels, blocks and heads that
        none of the networks has do not change.

        Args:
            images: `(B, channels, H, W)`, normalised.
            networks: for each network, the hidden channels of each of its blocks.
            visits: BN's momentum for each pass, see `Visits`; None does not update the running statistics.
            inputs: with a single network only; a list that receives the detached input of each of its blocks and of its
                head, for `others`.
        """
        assert inputs is None or len(networks) == 1
        return self._along(self._stem(images), networks, visits, inputs)

    @torch.no_grad()
    def others(
        self, networks: Sequence[tuple[int, ...]], base: tuple[int, ...], inputs: Sequence[Tensor]
    ) -> list[Tensor]:
        """As `sliced`, without gradients, for networks that resemble a base network which has seen the same images.

        The blocks that a network has in common with the base from the first one on are not computed again. Running
        statistics do not change.

        Args:
            networks: see `sliced`.
            base: the hidden channels of each block of the base.
            inputs: the list that the call of the base filled, see `sliced`.
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
        """The logits of each network, from the input of the first block. See `sliced` and `others`."""
        found: dict[int, Tensor] = {}

        def descend(x: Tensor, depth: int, members: Sequence[int], known: bool) -> None:
            """Continue from the input of a block, for networks that agree in all blocks before it."""
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
                out = outputs.pop(width)  # so that its memory is freed when its networks are done
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
    """The momentum of BN's running statistics in each pass, when several networks update them together.

    The statistics end at (1 − m) · old + m · (mean over the networks that have the block or head), however many
    networks share a pass. A channel is updated in each pass whose widest network has it, with the weight of all
    networks of that pass, and not in other passes. Its total update therefore depends on the order of the passes.

    Args:
        networks: all networks of the update, see `WideResNet.sliced`.
        momentum: m.
    """

    def __init__(self, networks: Sequence[tuple[int, ...]], momentum: float) -> None:
        depths = [len(network) for network in networks]
        self.momentum = momentum
        self._blocks = [sum(d > i for d in depths) for i in range(max(depths))]
        self._heads = [sum(d == i for d in depths) for i in range(max(depths) + 1)]
        self._to_come = {"block": list(self._blocks), "head": list(self._heads)}

    def block(self, depth: int, members: int) -> float:
        """The momentum for a pass of `members` networks through the block number `depth`, from 0."""
        return self._next("block", self._blocks[depth], depth, members)

    def head(self, depth: int, members: int) -> float:
        """The same for the head after `depth` blocks."""
        return self._next("head", self._heads[depth], depth, members)

    def _next(self, what: str, total: int, depth: int, members: int) -> float:
        self._to_come[what][depth] -= members
        share = self.momentum / total
        return members * share / (1 - self._to_come[what][depth] * share)
