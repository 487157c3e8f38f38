"""A function that is quadratic in each site and additive over sites: ReinMax is exact on it, straight-through is not.

f(x) = Σ_l a_lᵀ x_l + x_lᵀ B_l x_l,    sizes (2, 3, 4), fixed random a and B
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suites.tasks.base import Sites
from suites.tasks.function import FunctionTask
from suites.tasks.functions import Function


class Quadratic(Function):
    """f of the quadratic task."""

    sizes = (2, 3, 4)

    def __init__(self, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(11)
        self.device = device
        self.a = [torch.randn(size, generator=generator).to(device) for size in self.sizes]
        self.b = [torch.randn(size, size, generator=generator).to(device) for size in self.sizes]

    def __call__(self, sample: Sites) -> Tensor:
        terms = [
            x @ a.to(x.dtype) + ((x @ b.to(x.dtype)) * x).sum(-1)
            for x, a, b in zip(sample, self.a, self.b, strict=True)
        ]
        return sum(terms[1:], terms[0])


class QuadraticTask(FunctionTask):
    """The quadratic task."""

    name = "quadratic"

    def function(self, settings: Any) -> Quadratic:
        return Quadratic(self.context.device)
