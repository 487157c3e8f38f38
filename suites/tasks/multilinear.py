"""A function that is linear in each site and joint over all: straight-through and ReinMax are exact on it.

f(x) = Σ_z F_z Π_l x_{l, z_l},    sizes (2, 3, 4), a fixed random table F
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suites.tasks.base import Sites
from suites.tasks.function import FunctionTask
from suites.tasks.functions import Function


class Multilinear(Function):
    """f of the multilinear task."""

    sizes = (2, 3, 4)

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.table = torch.randn(self.sizes, generator=torch.Generator().manual_seed(13)).to(device)

    def __call__(self, sample: Sites) -> Tensor:
        return torch.einsum("abc,...a,...b,...c->...", self.table.to(sample[0].dtype), *sample)


class MultilinearTask(FunctionTask):
    """The multilinear task."""

    name = "multilinear"

    def function(self, settings: Any) -> Multilinear:
        return Multilinear(self.context.device)
