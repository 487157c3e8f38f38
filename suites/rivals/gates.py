"""Random gates on hidden channels: their distributions, and a run that trains their logits with the weights.

A channel i is multiplied by a random gate z_i, independent of the others, with a logit φ_i. The gates and the weights w
minimise

    E_z [ℓ(w ⊙ z)] + ½ s (E[r] − t)²,      E[r] = fixed + Σ_i c_i P(z_i ≠ 0)

r are the MACs as a fraction of the full network's, c_i those of channel i, t the target, and s the stiffness, as for q
in `vmo.target`. At the end the channels with the largest φ are kept, and each is multiplied by a fixed gate ẑ_i.

The gate is where VMO has its mask: after BN and ReLU, before the second convolution. There a soft gate is not undone by
BN.

Hard concrete (Louizos, Welling, Kingma 2018, arXiv:1712.01312), with β = 2/3, γ = −0.1, ζ = 1.1:

    u ~ U(0, 1),    s = σ((log u − log(1 − u) + φ)/β),    z = min(1, max(0, γ + (ζ − γ) s))
    P(z ≠ 0) = σ(φ − β log(−γ/ζ))
    ẑ = min(1, max(0, γ + (ζ − γ) σ(φ)))

Bernoulli: P(z = 1) = P(z ≠ 0) = σ(φ), and ẑ = 1 for every channel that is kept.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from suites.rivals.base import Start
from vmo.narrow import Narrowing

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
"""The temperature of the hard concrete distribution, and the ends of its stretched interval."""


def stretched(s: Tensor) -> Tensor:
    """s in (0, 1), stretched to (γ, ζ) and cut to [0, 1]."""
    return (GAMMA + (ZETA - GAMMA) * s).clamp(0, 1)


def hard_concrete(logits: Tensor, u: Tensor) -> Tensor:
    """Gates from logits and uniforms of the same shape, differentiable in the logits."""
    return stretched(torch.sigmoid((torch.logit(u) + logits) / BETA))


def open_probability(logits: Tensor) -> Tensor:
    """P(z ≠ 0) of hard concrete gates."""
    return torch.sigmoid(logits - BETA * math.log(-GAMMA / ZETA))


class Gates(nn.Module):
    """The logits φ of the gates, one parameter for all channels of all blocks.

    Args:
        hidden: hidden channels of each block.
        start: σ(φ) at the beginning, in (0, 1).
    """

    def __init__(self, hidden: Sequence[int], start: float) -> None:
        super().__init__()
        self.hidden = tuple(hidden)
        self.logits = nn.Parameter(torch.full((sum(self.hidden),), math.log(start / (1 - start))))

    def split(self, values: Tensor) -> tuple[Tensor, ...]:
        """Values `(*lead, channels)` as `(*lead, hidden)` for each block."""
        return values.split(self.hidden, -1)


class Gated(Narrowing):
    """A run with gates.

    Args:
        start: the start of the run.
        open_at_start: σ(φ) at the beginning.
    """

    def __init__(self, start: Start, open_at_start: float) -> None:
        with start.dataset.train.images.device:
            self.gates = Gates(start.network.config.widths, open_at_start)
        super().__init__(start.network, start.dataset, start.recipe, target=start.target, seed=start.seed)
        rest, fixed, slope = self.network.config.macs(self.dataset.shape[-1])
        total = self.network.config.total_macs(self.dataset.shape[-1])
        self._fixed = (rest + sum(fixed)) / total
        device = self.gates.logits.device
        self._slope = (
            torch.tensor(slope, device=device).repeat_interleave(torch.tensor(self.gates.hidden, device=device)) / total
        )

    @property
    def phi(self) -> nn.Module:
        return self.gates

    @abstractmethod
    def opened(self) -> Tensor:
        """P(z ≠ 0) of every gate, `(channels,)`."""

    def penalty_of_gates(self) -> Tensor:
        """½ s (E[r] − t)², `()`."""
        return self.target.of(self._fixed + (self._slope * self.opened()).sum())

    def scores(self) -> Sequence[Tensor]:
        return self.gates.split(self.gates.logits.detach())

    def expected_width(self) -> float:
        if self.kept is not None:
            return super().expected_width()
        with torch.no_grad():
            return float(torch.stack([one.mean() for one in self.gates.split(self.opened())]).mean())
