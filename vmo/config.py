"""The shape of a Wide ResNet, and the cost of each block and channel."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WideResNetConfig:
    """The configuration of a Wide ResNet, in plain JSON types.

    Args:
        depth: number of layers, 6n + 4.
        widen: the widening factor.
        classes: number of classes.
        channels: input channels.
        hidden: channels between the two convolutions of each block; None: as many as the block's output channels.
        blocks: how many of the first blocks to keep; None: all 3n.
        heads: "last": a classifier after the last block; "all": one after every block.

    Raises:
        ValueError: an invalid value; the message gives the range.
    """

    depth: int = 16
    widen: int = 1
    classes: int = 10
    channels: int = 3
    hidden: tuple[int, ...] | None = None
    blocks: int | None = None
    heads: str = "last"

    def __post_init__(self) -> None:
        if self.depth < 10 or (self.depth - 4) % 6:
            raise ValueError(f"a Wide ResNet has 6n + 4 layers (10, 16, 22, 28, …), got {self.depth}")
        if min(self.widen, self.classes, self.channels) < 1:
            raise ValueError(f"widen, classes and channels must be positive, got {self}")
        if self.blocks is not None and not 1 <= self.blocks <= self.depth // 2 - 2:
            raise ValueError(f"blocks must lie in 1 … {self.depth // 2 - 2}, got {self.blocks}")
        count = len(self.outputs)
        if self.hidden is not None and (len(self.hidden) != count or min(self.hidden) < 1):
            raise ValueError(f"hidden must give a positive width for each of {count} blocks, got {self.hidden}")
        if self.heads not in ("last", "all"):
            raise ValueError(f"heads must be 'last' or 'all', got {self.heads!r}")

    @property
    def outputs(self) -> tuple[int, ...]:
        """Output channels of each block."""
        n = (self.depth - 4) // 6
        return tuple(width * self.widen for width in (16, 32, 64) for _ in range(n))[: self.blocks]

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each block: 2 in the first block of the second and third group, else 1."""
        n = (self.depth - 4) // 6
        return tuple(2 if group and not i else 1 for group in range(3) for i in range(n))[: self.blocks]

    @property
    def widths(self) -> tuple[int, ...]:
        """Hidden channels of each block."""
        return self.outputs if self.hidden is None else self.hidden

    def macs(self, size: int) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
        """Multiply-accumulates (MACs) of convolutions and linear layers for one `size` × `size` image.

        The head is counted with the blocks: block l includes the cost of the head after it minus that of the head
        before it. So the first d blocks together include the one head of a network of d blocks.

        Returns:
            MACs of the stem; of each block, independent of its hidden width; of each block per hidden channel.
        """
        areas, area = [], size
        for stride in self.strides:
            area = -(-area // stride)
            areas.append(area**2)
        fixed = tuple(
            float(a * i * o * s + g * self.classes) for a, (i, o, s, g) in zip(areas, self._geometry, strict=True)
        )
        slope = tuple(9.0 * a * (i + o) for a, (i, o, _, _) in zip(areas, self._geometry, strict=True))
        return 9.0 * self.channels * 16 * size**2, fixed, slope

    def parameters(self) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
        """Trainable parameters, split as in `macs`. One head is counted, whatever `heads` is."""
        fixed = tuple(2.0 * i + i * o * s + g * (2 + self.classes) for i, o, s, g in self._geometry)
        slope = tuple(9.0 * (i + o) + 2 for i, o, _, _ in self._geometry)
        return 9.0 * self.channels * 16 + self.classes, fixed, slope

    @property
    def _geometry(self) -> list[tuple[int, int, bool, int]]:
        """For each block: inputs, outputs, whether the shortcut is a convolution, outputs minus the block before."""
        inputs = (16, *self.outputs[:-1])
        shortcuts = map(projects, inputs, self.outputs, self.strides)
        gains = (o - i for i, o in zip((0, *self.outputs[:-1]), self.outputs, strict=True))
        return list(zip(inputs, self.outputs, shortcuts, gains, strict=True))

    def total_macs(self, size: int) -> float:
        """Multiply-accumulates of the whole network for one `size` × `size` image."""
        rest, fixed, slope = self.macs(size)
        return rest + sum(fixed) + sum(s * k for s, k in zip(slope, self.widths, strict=True))


def projects(inputs: int, outputs: int, stride: int) -> bool:
    """Whether a block's shortcut is a convolution, and not the identity."""
    return inputs != outputs or stride != 1
