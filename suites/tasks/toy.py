"""The toy: a joint, non-additive objective on three categoricals of different sizes, with 24 configurations.

    f(x) = vᵀ tanh(W [x_1; x_2; x_3]) + x_{1,1} x_{2,2} x_{3,3},    sizes (2, 3, 4), fixed random W and v

It is smooth off the vertices, so every estimator works on it. It is not a sum over sites, so no estimator is exact on
it by chance.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suites.tasks.base import Sites
from suites.tasks.function import FunctionTask
from suites.tasks.functions import Function, concatenated


class Joint(Function):
    """f of the toy task."""

    sizes = (2, 3, 4)

    def __init__(self, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(7)
        self.device = device
        self.w = (1.5 * torch.randn(sum(self.sizes), 8, generator=generator)).to(device)
        self.v = torch.randn(8, generator=generator).to(device)

    def __call__(self, sample: Sites) -> Tensor:
        x = concatenated(sample)
        hidden = torch.tanh(x @ self.w.to(x.dtype)) @ self.v.to(x.dtype)
        return hidden + sample[0][..., 0] * sample[1][..., 1] * sample[2][..., 2]


class Toy(FunctionTask):
    """The toy task."""

    name = "toy"

    def function(self, settings: Any) -> Joint:
        return Joint(self.context.device)
