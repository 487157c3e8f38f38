"""A small network over all sites: the control variate of RELAX and the baseline network of NVIL."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from estimators.objective import Sites
from estimators.sitewise import Stacked, stacks


class Surrogate(nn.Module):
    """s · MLP(2x − 1) of the concatenated sites x, with one tanh layer. s starts at 0; the MLP has a fixed seed.

    Args:
        sizes: K_l of each site.
        hidden: width of the tanh layer.
    """

    def __init__(self, sizes: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.scale = nn.Parameter(torch.zeros(()))
        self.network = nn.Sequential(_Linear(sum(sizes), hidden), nn.Tanh(), _Linear(hidden, 1))
        generator = torch.Generator(self.scale.device).manual_seed(0)
        for layer in self.network:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight, generator=generator)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Sites) -> Tensor:
        """The value, `(*rows)`, at points of the simplex `(*rows, K_l)`."""
        value: Tensor = self.scale * self.network(self._flat(x)).squeeze(-1)
        return value

    def with_slope(self, x: Stacked, times: Tensor | float = 1.0) -> tuple[Tensor, Stacked]:
        """The value, and `times` · its slope in x, `(*rows, K_l)`. By hand, so that a fit differentiates only once."""
        first, _, last = self.network
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
        flat = self._flat(x)
        hidden = torch.tanh(first(flat))
        value = self.scale * last(hidden).squeeze(-1)
        inner = (1 - hidden * hidden) * (2 * times * self.scale * last.weight[0])
        slope = (inner @ first.weight).to(x.stacks[0].dtype)
        if len(x.stacks) == 1:
            return value, Stacked((slope.view_as(x.stacks[0]),), x.layout)
        return value, Stacked(stacks(slope.split(self.sizes, -1), x.layout), x.layout)

    def _flat(self, x: Sites) -> Tensor:
        side_by_side = isinstance(x, Stacked) and len(x.stacks) == 1  # same order as cat, without a view of each site
        joined = x.stacks[0].flatten(-2) if side_by_side else torch.cat(tuple(x), -1)  # type: ignore[attr-defined]
        return (2 * joined - 1).to(self.scale.dtype)


class _Linear(nn.Linear):
    def reset_parameters(self) -> None:
        """Do nothing: torch's own initialisation would draw from the global generator."""
