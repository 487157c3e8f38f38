"""One site of four categories, a linear objective, and the Jacobian of a softmax, for tests of single estimators."""

from __future__ import annotations

import torch
from torch import Tensor

PHI = torch.tensor([0.4, -1.0, 0.9, 0.1], dtype=torch.float64)
SLOPE = torch.tensor([0.7, -0.3, 1.1, 0.2], dtype=torch.float64)


def linear(slope: Tensor):  # type: ignore[no-untyped-def]
    return lambda sample: sample[0] @ slope


def jacobian(p: Tensor) -> Tensor:
    return torch.diag(p) - torch.outer(p, p)
