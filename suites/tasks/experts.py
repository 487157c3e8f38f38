"""A mixture of experts with hard routing: two layers of eight experts, one of each layer for every image.

    f(z) = −log p(y | x, z),    z = (expert of the first layer, expert of the second layer) ~ q(z|x)

One router makes the logits of both layers from the image. Without a further term one expert would soon get every image.
So the router also maximises the entropy of the mean of q over the minibatch, as load-balancing losses do (Shazeer et
al. 2017, arXiv:1701.06538). This term is known exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from suites.tasks.amortised_model import Batch
from suites.tasks.base import Sites
from suites.tasks.classifier import Classifier, ClassifierTask

LAYERS, EXPERTS = 2, 8
WIDTH = 16  # hidden units of an expert of the first layer
BALANCE = 0.3  # weight of the negative entropy, per image


class Experts(Classifier):
    """Router and experts. All experts are computed, which is cheap at this size, and z selects.

    Args:
        mean: mean intensities `(pixels,)`.
        classes: number of classes.
        hidden: width of the router's hidden layer.
    """

    def __init__(self, mean: Tensor, classes: int, hidden: int) -> None:
        super().__init__(mean, (LAYERS, EXPERTS), 1, hidden)
        self.first = nn.Linear(len(mean), EXPERTS * WIDTH)
        self.second = nn.Linear(WIDTH, EXPERTS * classes)

    def scores(self, batch: Batch) -> Callable[[Sites], Tensor]:
        x = batch[0] - self.mean

        def of(sample: Sites) -> Tensor:
            first, second = sample
            inner = self.first(x).unflatten(-1, (EXPERTS, WIDTH))
            units = torch.relu((first.unsqueeze(-2) @ inner).squeeze(-2))
            outer = self.second(units).unflatten(-1, (EXPERTS, -1))
            return (second.unsqueeze(-2) @ outer).squeeze(-2)

        return of

    def exactly(self, logits: Tensor) -> Tensor:
        share = torch.softmax(logits, -1).mean(0)
        return BALANCE * len(logits) * torch.xlogy(share, share).sum()


class ExpertsTask(ClassifierTask):
    """The task of the mixture of experts."""

    name = "experts"
    version = 2

    def shape(self, how: Any) -> tuple[int, int]:
        return LAYERS, EXPERTS

    def model(self, how: Any, examples: Batch) -> Experts:
        images, classes = examples
        return Experts(images.mean(0), classes.shape[-1], how.hidden)
