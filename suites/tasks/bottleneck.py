"""A classifier with a discrete bottleneck: an image is described by eight variables of eight values each.

    f(z) = −log p(y | z),    z ~ q(z|x)

The encoder makes logits for every image. The classifier sees only z.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from suites.tasks.amortised_model import Batch, mlp
from suites.tasks.base import Sites
from suites.tasks.classifier import Classifier, ClassifierTask
from suites.tasks.functions import concatenated

VARIABLES, VALUES = 8, 8


class Bottleneck(Classifier):
    """Encoder, and a classifier of z with one hidden layer.

    Args:
        mean: mean intensities `(pixels,)`.
        classes: number of classes.
        hidden: width of the hidden layers.
    """

    def __init__(self, mean: Tensor, classes: int, hidden: int) -> None:
        super().__init__(mean, (VARIABLES, VALUES), 1, hidden)
        self.classifier: nn.Module = mlp([VARIABLES * VALUES, hidden, classes])

    def scores(self, batch: Batch) -> Callable[[Sites], Tensor]:
        return lambda sample: self.classifier(concatenated(sample))


class BottleneckTask(ClassifierTask):
    """The bottleneck task."""

    name = "bottleneck"

    def shape(self, how: Any) -> tuple[int, int]:
        return VARIABLES, VALUES

    def model(self, how: Any, examples: Batch) -> Bottleneck:
        images, classes = examples
        return Bottleneck(images.mean(0), classes.shape[-1], how.hidden)
