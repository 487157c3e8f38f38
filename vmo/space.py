"""The architectures A that a task varies, the distribution q over them, and the penalty γ r(A).

A Wide ResNet has B residual blocks, and block l has K_l hidden channels. The sites of a task are

    depth   d ∈ {1 … B}: the head after block d gives the output            (Eq. 5)
    width   k_l ∈ {step, 2·step, … K_l} for every block: hidden channels    (Eq. 6)
    joint   d, then every k_l

Sites are independent under q. r(A) is linear in each site, so E_q[r] is computed exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from estimators.noise import gumbel_argmax, uniform
from vmo.masks import prefix_mask

Sites = Sequence[Tensor]
TASKS = ("depth", "width", "joint")


@dataclass(frozen=True)
class Architecture:
    """An architecture: the number of residual blocks that are kept, and the hidden channels of each of them."""

    blocks: int
    hidden: tuple[int, ...]


@dataclass(frozen=True)
class Space:
    """The sites of a task.

    Args:
        task: "depth", "width" or "joint".
        hidden: hidden channels of each block of the full network.
        step: widths are multiples of it.

    Raises:
        ValueError: unknown task, or a step that does not divide every width.
    """

    task: str
    hidden: tuple[int, ...]
    step: int = 1

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, got {self.task!r}")
        if self.step < 1 or any(k % self.step for k in self.hidden):
            raise ValueError(f"the width step must divide every width of {sorted(set(self.hidden))}, got {self.step}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """K of each site, in the order of the sites."""
        depth = () if self.task == "width" else (len(self.hidden),)
        width = () if self.task == "depth" else tuple(k // self.step for k in self.hidden)
        return depth + width

    def split(self, sites: Sites) -> tuple[Tensor | None, Sites]:
        """The depth site, if the task has one, and the width sites, one per block or none."""
        if self.task == "width":
            return None, sites
        return sites[0], sites[1:]

    def architecture(self, index: Sequence[int]) -> Architecture:
        """The architecture for one category per site."""
        values = list(index)
        blocks = len(self.hidden) if self.task == "width" else values.pop(0) + 1
        hidden = tuple((i + 1) * self.step for i in values) if values else self.hidden
        return Architecture(blocks, hidden[:blocks])

    @property
    def full(self) -> Architecture:
        """The architecture with nothing removed."""
        return Architecture(len(self.hidden), self.hidden)


@dataclass(frozen=True)
class Penalty:
    """γ r(A), with γ r = Σ_l [d ≥ l] fixed_l + Σ_l a_l slope_l k_l, where a_l = [d ≥ l] if `active`, else 1.

    d is the depth and k_l the width of block l; γ is contained in `fixed` and `slope`. The paper's r has the same fixed
    for all blocks and the same slope for all blocks. Parameters and MACs have this form too, because a mask on the
    hidden channels does not change the inputs and outputs of a block.
    """

    fixed: tuple[float, ...]
    slope: tuple[float, ...]
    active: bool
    _made: dict[Any, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def expected(self, space: Space, probabilities: Sites) -> Tensor:
        """E_q[γ r(A)] at probabilities `(K,)` per site. At a one-hot sample it is γ r of that architecture."""
        depth, widths = space.split(probabilities)
        like = probabilities[0]
        reach = like.new_ones(len(space.hidden)) if depth is None else prefix_mask(depth)
        mean = expected_widths(space, widths) if widths else self._vector(space.hidden, like)
        slope = self._vector(self.slope, like) * mean
        return (reach * self._vector(self.fixed, like)).sum() + (slope * reach if self.active else slope).sum()

    def _vector(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        """The values in the dtype and on the device of `like`. Cached, because a copy from the host waits for it."""
        key = values, like.dtype, like.device, getattr(like, "fake_mode", None)
        if key not in self._made:
            self._made[key] = like.new_tensor(values)
        return self._made[key]

    def reach(self, space: Space) -> dict[str, float]:
        """The largest difference of the penalty between depths, and between widths, in units of the loss."""
        full = [slope * k for slope, k in zip(self.slope, space.hidden, strict=True)]
        spans = (cost - slope * space.step for cost, slope in zip(full, self.slope, strict=True))
        return {
            "depth": 0.0 if space.task == "width" else sum(self.fixed[1:]) + self.active * sum(full[1:]),
            "width": 0.0 if space.task == "depth" else sum(spans),
        }


def literal_penalty(
    space: Space, gamma_depth: float = 1e-3, gamma_width: float = 1e-8, active: bool = False
) -> Penalty:
    """The paper's penalty: γ_d d and γ_w Σ_l k_l, over all blocks or (`active`) those up to the depth."""
    fixed = gamma_depth * (space.task != "width")
    slope = gamma_width * (space.task != "depth")
    return Penalty((fixed,) * len(space.hidden), (slope,) * len(space.hidden), active)


def normalised_penalty(space: Space, gamma: float, cost: tuple[float, tuple[float, ...], tuple[float, ...]]) -> Penalty:
    """γ times MACs or parameters, as a fraction of the full network's.

    Args:
        space: the sites.
        gamma: penalty of the full network, in nats.
        cost: what `WideResNetConfig.macs` or `.parameters` returns.
    """
    rest, fixed, slope = cost
    scale = gamma / (rest + sum(fixed) + sum(s * k for s, k in zip(slope, space.hidden, strict=True)))
    fixed = (rest + fixed[0], *fixed[1:])  # every architecture has the first block
    return Penalty(tuple(scale * f for f in fixed), tuple(scale * s for s in slope), active=True)


def expected_widths(space: Space, probabilities: Sites) -> Tensor:
    """E[k_l] in channels, `(blocks,)`, from probabilities `(K_l,)` per block."""
    counts = (torch.arange(1, p.shape[-1] + 1, device=p.device) for p in probabilities)
    return space.step * torch.stack([(p * count).sum() for p, count in zip(probabilities, counts, strict=True)])


class ArchitectureDistribution(nn.Module):
    """q: independent categoricals over the sites of a space, with their logits as parameters.

    Args:
        space: the sites.
        full_bias: initial logit of the last category of each site; 0 is the uniform distribution.
    """

    def __init__(self, space: Space, full_bias: float = 0.0) -> None:
        super().__init__()
        self.space = space
        self._logits = nn.ParameterList([torch.zeros(size) for size in space.sizes])
        with torch.no_grad():
            for site in self._logits:
                site[-1] = full_bias

    @property
    def logits(self) -> Sites:
        """φ, one `(K_l,)` parameter per site."""
        return tuple(self._logits)

    def probabilities(self) -> Sites:
        """q, `(K_l,)` per site."""
        return tuple(torch.softmax(site, -1) for site in self._logits)

    @torch.no_grad()
    def entropy(self) -> Tensor:
        """The entropy of each site in nats, `(sites,)`."""
        return torch.stack([torch.special.entr(p).sum() for p in self.probabilities()])

    @torch.no_grad()
    def sample(self, generator: torch.Generator | None = None) -> Architecture:
        """An architecture drawn from q."""
        index = gumbel_argmax(self.logits, uniform(self.logits, generator))
        return self.space.architecture([int(i) for i in index])

    def mode(self) -> Architecture:
        """The most probable architecture."""
        return self.space.architecture([int(site.argmax()) for site in self._logits])

    @torch.no_grad()
    def expected_depth(self) -> Tensor:
        """E[d] in blocks."""
        depth, _ = self.space.split(self.probabilities())
        if depth is None:
            return torch.tensor(float(len(self.space.hidden)))
        return (depth * torch.arange(1, len(depth) + 1, device=depth.device)).sum()

    @torch.no_grad()
    def expected_width(self) -> Tensor:
        """Mean over blocks of E[k_l] / K_l, in [0, 1]."""
        _, widths = self.space.split(self.probabilities())
        if not widths:
            return torch.tensor(1.0)
        mean = expected_widths(self.space, widths)
        return (mean / mean.new_tensor(self.space.hidden)).mean()
