"""The objective of a gated network on one minibatch, as estimators see it: gates in, loss out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from estimators.noise import one_hot
from estimators.objective import Objective
from vmo.layers import at_least_fp32
from vmo.masks import prefix_mask
from vmo.space import Sites, Space
from vmo.wrn import Visits, WideResNet


class MinibatchObjective(Objective):
    """Cross-entropy (nats, mean over images) of a gated network on one minibatch, as a function of a sample.

    One call of the network takes one mask, so S soft samples need S calls. Samples that differ only in depth share a
    call, because one pass computes the logits of every head. Hard samples on slices share their common first blocks.
    In training mode a call updates BN's running statistics once, by the mean over its samples; with slices, by the mean
    over the samples that have the block or head.

    Args:
        network: the gated network.
        space: the meaning of the sites.
        images: `(B, channels, H, W)`, normalised.
        labels: int64 `(B,)`.
        groups: 1, or S. With S, the last dimension of every sample has size S. Sample s acts on the s-th of S equal
            parts of the minibatch, with its own BN statistics, and its loss is divided by S.
        dtype: of autocast; None: no autocast.
        slicing: whether `hard` evaluates sliced convolutions, only as deep as the sample. This needs eager mode and
            tensors with readable values; otherwise masks are used.

    Raises:
        ValueError: `groups` does not divide the minibatch.
    """

    broadcasts = True
    momentum: float = 0.1

    def __init__(
        self,
        network: WideResNet,
        space: Space,
        images: Tensor,
        labels: Tensor,
        *,
        groups: int = 1,
        dtype: torch.dtype | None = None,
        slicing: bool = True,
    ) -> None:
        if groups < 1 or len(images) % groups:
            raise ValueError(f"groups must divide the minibatch of {len(images)} images, got {groups}")
        self.network, self.space, self.images, self.labels = network, space, images, labels
        self.groups, self.dtype = groups, dtype
        # reading a category breaks a compiled graph, and fake tensors have no values
        self.slicing = slicing and type(images) is Tensor and not torch.compiler.is_compiling()

    def __call__(self, sample: Sites, /) -> Tensor:
        return self._evaluate(sample, frozen=False)

    def hard(self, index: Sites, /) -> Tensor:
        if self.slicing:
            return self._sliced(*self._networks(index))
        return self(tuple(one_hot(i, size, torch.float32) for i, size in zip(index, self.space.sizes, strict=True)))

    def control(self, sample: Sites, /) -> Tensor:
        return self._evaluate(sample, frozen=True)

    def part(self, i: int, n: int, /) -> MinibatchObjective | None:
        if len(self.images) % n or self.groups > 1:
            return None
        images, labels = self.images.tensor_split(n)[i], self.labels.tensor_split(n)[i]
        piece = type(self)(self.network, self.space, images, labels, dtype=self.dtype, slicing=self.slicing)
        piece.momentum = 1 - (1 - self.momentum) ** (1 / n)  # n parts update the running statistics as much as one pass
        return piece

    def around(self, index: Sites, others: Sites, /) -> tuple[Tensor, Tensor]:
        """See `Objective.around`. On slices, the others are computed from the first block that differs."""
        rows = (self.groups,) if self.groups > 1 else ()
        if not self.slicing:
            loss = self.hard(index)
            with torch.no_grad():
                pairs = zip(others, self.space.sizes, strict=True)
                return loss, self.control(tuple(one_hot(i, size, torch.float32) for i, size in pairs))
        shape, networks = self._networks(index)
        if any(site.shape != rows for site in index):  # several samples, so no single base
            loss = self._sliced(shape, networks)
            with torch.no_grad():
                return loss, self._sliced(*self._networks(others), still=True)
        trails: list[list[Tensor]] = [[] for _ in range(self.groups)]
        loss = self._sliced(shape, networks, trails)
        shape, drawn = self._networks(others)
        with torch.autocast(self.images.device.type, self.dtype, enabled=self.dtype is not None):
            logits = [
                self.network.others(those, base, trail)
                for those, (base,), trail in zip(drawn, networks, trails, strict=True)
            ]
        return loss, self._losses(logits, shape)

    def _networks(self, index: Sites) -> tuple[torch.Size, list[list[tuple[int, ...]]]]:
        """The shape of the values at an index, and the networks for each group of images."""
        rows = (self.groups,) if self.groups > 1 else ()
        shape = torch.broadcast_shapes(rows, *(site.shape for site in index))
        flat = torch.stack([site.expand(shape) for site in index], -1).view(-1, self.groups, len(index)).tolist()
        return shape, [[self.space.architecture(row[g]).hidden for row in flat] for g in range(self.groups)]

    def _sliced(
        self,
        shape: torch.Size,
        networks: Sequence[list[tuple[int, ...]]],
        trails: Sequence[list[Tensor] | None] | None = None,
        still: bool = False,
    ) -> Tensor:
        """The losses of each group's networks.

        `trails` receives the inputs of the blocks of a single network. `still`: do not update running statistics.
        """
        visits = None if still else Visits([network for group in networks for network in group], self.momentum)
        parts = zip(self.images.tensor_split(self.groups), networks, trails or [None] * self.groups, strict=True)
        with torch.autocast(self.images.device.type, self.dtype, enabled=self.dtype is not None):
            logits = [self.network.sliced(images, group, visits=visits, inputs=trail) for images, group, trail in parts]
        return self._losses(logits, shape)

    def _losses(self, logits: Sequence[list[Tensor]], shape: torch.Size) -> Tensor:
        """Cross-entropies of each group's networks."""
        values = []
        for mine, labels in zip(logits, self.labels.tensor_split(self.groups), strict=True):
            different = {id(one): one for one in mine}  # equal networks share one tensor of logits
            place = {key: i for i, key in enumerate(different)}
            stacked = at_least_fp32(torch.stack(list(different.values())))
            each = F.cross_entropy(stacked.flatten(0, 1), labels.repeat(len(stacked)), reduction="none")
            means = (each.view(len(stacked), -1).mean(-1) / self.groups).unbind()
            values.append(torch.stack([means[place[id(one)]] for one in mine]))
        return torch.stack(values, -1).view(shape)

    def _evaluate(self, sample: Sites, *, frozen: bool) -> Tensor:
        """The losses on masks: one pass of the network for each leading position of the width sites."""
        depth, widths = self.space.split(sample)
        rows = (self.groups,) if self.groups > 1 else ()
        lead = torch.broadcast_shapes(rows, *(site.shape[:-1] for site in widths))
        full = torch.broadcast_shapes(lead, () if depth is None else depth.shape[:-1])
        lead = (1,) * (len(full) - len(lead)) + lead
        if depth is not None:
            depth = depth.expand(*full, depth.shape[-1])
        masks = [prefix_mask(site, self.space.step) for site in widths]
        flat = [mask.expand(*lead, mask.shape[-1]).reshape(-1, mask.shape[-1]) for mask in masks]

        positions = list(itertools.product(*map(range, lead)))
        blocks = []
        for n, position in enumerate(positions):
            # so that running statistics end at (1 − m) · old + m · (mean over passes)
            share = self.momentum / len(positions)
            momentum = None if frozen else share / (1 - (len(positions) - 1 - n) * share)
            group = position[-1] if self.groups > 1 else 0
            here = tuple(slice(None) if size == 1 else p for size, p in zip(lead, position, strict=True))
            mine = [mask[n] for mask in flat]
            blocks.append(self._pass(mine, None if depth is None else depth[here], group, momentum))
        # each dimension of `full` is either over passes or within a pass
        within = tuple(1 if size > 1 else total for size, total in zip(lead, full, strict=True))
        order = [axis for i in range(len(full)) for axis in (i, i + len(full))]
        return torch.stack(blocks).reshape((*lead, *within)).permute(order).reshape(full)

    def _pass(self, masks: list[Tensor], depth: Tensor | None, group: int, momentum: float | None) -> Tensor:
        """The loss from one pass of the network: `()`, or the shape of the depth samples that share this pass."""
        images, labels = (part.tensor_split(self.groups)[group] for part in (self.images, self.labels))
        gates: dict[str, Any] = {"masks": masks, "momentum": momentum, "every_head": depth is not None}
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype is not None):
            if momentum is None:
                frozen = {name: parameter.detach() for name, parameter in self.network.named_parameters()}
                logits = functional_call(self.network, frozen, (images,), {**gates, "relaxed": True})
            else:
                logits = self.network(images, **gates)
        logits = at_least_fp32(logits)
        if depth is None:
            return F.cross_entropy(logits, labels) / self.groups
        mixed = torch.tensordot(depth.to(logits.dtype), logits, dims=1)  # Eq. 5, (*depths, B, classes)
        each = F.cross_entropy(mixed.flatten(0, -2), labels.repeat(depth[..., 0].numel()), reduction="none")
        return each.view(*depth.shape[:-1], len(labels)).mean(-1) / self.groups
