"""What the tests of `compare` share: an objective that can be enumerated, an encoder, and how a result is read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from results.comparison import Comparison

SIZES = (2, 3)


LOGITS = [torch.tensor([0.3, -0.2]), torch.tensor([0.0, 0.5, -0.4])]


SEVERAL = ["reinforce[baseline=none]", "rloo", "straight_through", "exact", "nvil"]


def cubic(sample: Sequence[Tensor]) -> Tensor:
    return (sample[0][..., 0] - 0.7 * sample[1][..., 1] + sample[1][..., 2]) ** 3 + 1


def enumerated() -> tuple[np.ndarray, float, np.ndarray]:
    """The true gradient of `cubic` `(5,)`, the variance of REINFORCE without a baseline, and the mean of straight-
    through `(5,)`, by enumeration in float64."""
    logits = [site.double() for site in LOGITS]
    p = [torch.softmax(site, -1) for site in logits]
    gradient, square, through = torch.zeros(5).double(), torch.zeros(()).double(), torch.zeros(5).double()
    for i, j in itertools.product(*map(range, SIZES)):
        weight = p[0][i] * p[1][j]
        z = [torch.eye(2).double()[i].requires_grad_(), torch.eye(3).double()[j].requires_grad_()]
        value = cubic(z)
        slopes = torch.autograd.grad(value, z)
        score = torch.cat([a.detach() - b for a, b in zip(z, p, strict=True)])
        gradient += weight * value.detach() * score
        square += weight * value.detach() ** 2 * score @ score
        through += weight * torch.cat([q * (v - q @ v) for q, v in zip(p, slopes, strict=True)])
    return gradient.numpy(), float(square - gradient @ gradient), through.numpy()


def line(result: Comparison, label: str, part: str = "logits") -> pd.Series:
    frame = result.frame
    return frame[(frame["estimator"] == label) & (frame["part"] == part)].iloc[0]


def within(row: pd.Series, name: str, truth: float, sigmas: float = 5.0) -> bool:
    error = (row[f"{name}_high"] - row[name]) / 1.96
    return abs(row[name] - truth) <= sigmas * error + 1e-9


def statuses(result: Comparison) -> dict[str, str]:
    return {label: one.status for label, one in result.measured.items()}


class Encoder(nn.Module):
    """Logits of two categoricals and the loss of a decoder, for rows of inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encode, self.decode = nn.Linear(4, 5), nn.Linear(5, 1)
        self.x = torch.randn(64, 4)
        self.at = 0

    def logits(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.encode(x).split((2, 3), -1))

    def f(self, x: Tensor):  # type: ignore[no-untyped-def]
        return lambda sample: (self.decode(torch.cat(tuple(sample), -1))[..., 0] - x.sum(-1)) ** 2

    def minibatch(self):  # type: ignore[no-untyped-def]
        self.at += 1
        x = self.x[torch.arange(8 * self.at, 8 * self.at + 8) % 64]
        return self.f(x), self.logits(x)
