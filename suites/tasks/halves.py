"""Structured output prediction: the lower half of an image from its upper half.

    f(z) = −log p(lower | z),    z ~ q(z | upper),    20 variables of 10 categories

Pixels are binary: intensities above one half. The lower half is not determined by the upper one. So q should stay
random, and its samples should cover the possible lower halves. The result is the bound with 100 samples of z per image,

    −log 1/100 Σ_s p(lower | z_s)

Raiko et al. 2015, arXiv:1406.2989; Jang, Gu, Poole 2017, arXiv:1611.01144 (there with two layers of variables).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from results.table import row
from suites.tasks.amortised import AmortisedTask
from suites.tasks.amortised_model import Batch, Model, bernoulli, drawn, mlp
from suites.tasks.base import Sites

VARIABLES, VALUES = 20, 10
BOUND = 100  # samples of z per image in the final bound


class Halves(Model):
    """Encoder of the upper half and decoder to the lower half, with one hidden layer each.

    Args:
        mean: means of the upper half's pixels.
        pixels: number of pixels of the lower half.
        hidden: width of the hidden layers.
    """

    def __init__(self, mean: Tensor, pixels: int, hidden: int) -> None:
        super().__init__(mean, (VARIABLES, VALUES), 1, hidden)
        self.decoder = mlp([VARIABLES * VALUES, hidden, pixels])

    def objective(self, batch: Batch) -> Callable[[Sites], Tensor]:
        """−log p(lower | z) in nats."""
        return bernoulli(self.decoder, batch[1])


class HalvesTask(AmortisedTask):
    """The task of structured output prediction."""

    name = "halves"

    def shape(self, how: Any) -> tuple[int, int]:
        return VARIABLES, VALUES

    def examples(self) -> tuple[Batch, Batch]:
        train, test = (_halves((images > 0.5).float()) for images in self.images)
        return train, test

    def blank(self, count: int) -> Batch:
        return _halves(torch.zeros(count, 28, 28, device=self.context.device))

    def model(self, how: Any, examples: Batch) -> Halves:
        upper, lower = examples
        return Halves(upper.mean(0), lower.shape[-1], how.hidden)

    def rows(self, model: Model, part: str, examples: Batch) -> Iterator[dict[str, Any]]:
        """Besides the objective: the bound, in nats."""
        yield from super().rows(model, part, examples)
        found = bound(model, examples, BOUND)
        yield row("nll", float(found.mean()), part=part, n=len(found), unit="nats")


def bound(model: Model, examples: Batch, samples: int) -> Tensor:
    """−log of the mean of p(lower | z) over samples of z, in nats, `(N,)`."""
    return torch.cat([math.log(samples) - torch.logsumexp(-f, 0) for _, _, f in drawn(model, examples, samples)])


def _halves(images: Tensor) -> Batch:
    """Upper and lower half of images `(N, H, W)`, flat."""
    half = images.shape[1] // 2
    return images[:, :half].flatten(1), images[:, half:].flatten(1)
