"""A classifier with a discrete bottleneck: an image is described by eight variables of eight values each.

    f(z) = −log p(y | z),    z ~ q(z|x)

The encoder makes logits for every image. The classifier sees only z.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from results.table import row
from suites.tasks.amortised import AmortisedTask, at_mode
from suites.tasks.amortised_model import Batch, Model, mlp
from suites.tasks.base import Sites
from suites.tasks.functions import concatenated

VARIABLES, VALUES = 8, 8


class Classifier(Model):
    """A model of the class y of an image, given z. An example is an image `(pixels,)` and its class, one-hot."""

    def scores(self, batch: Batch) -> Callable[[Sites], Tensor]:
        """Scores `(*lead, B, classes)` of z, `(*lead, B, K)` per variable."""
        raise NotImplementedError

    def objective(self, batch: Batch) -> Callable[[Sites], Tensor]:
        """−log p(y | z) in nats."""
        scores, target = self.scores(batch), batch[1]

        return lambda sample: -(torch.log_softmax(scores(sample), -1) * target).sum(-1)

    def right(self, batch: Batch) -> Callable[[Sites], Tensor]:
        """Whether the class with the highest score is y, `(*lead, B)`."""
        scores = self.scores(batch)
        return lambda sample: scores(sample).argmax(-1) == batch[1].argmax(-1)


class ClassifierTask(AmortisedTask):
    """A task whose model is a `Classifier` of images."""

    def examples(self) -> tuple[Batch, Batch]:
        train, test = self.images
        classes = torch.eye(self.dataset.classes, device=self.context.device)
        labels = [classes[split.labels] for split in (self.dataset.train, self.dataset.test)]
        return (train.flatten(1), labels[0]), (test.flatten(1), labels[1])

    def blank(self, count: int) -> Batch:
        device = self.context.device
        return torch.zeros(count, 28 * 28, device=device), torch.ones(count, 10, device=device) / 10

    def rows(self, model: Model, part: str, examples: Batch) -> Iterator[dict[str, Any]]:
        """Besides the objective: the accuracy at the most probable z."""
        assert isinstance(model, Classifier)
        yield from super().rows(model, part, examples)
        right = at_mode(model, examples, model.right)
        yield row("accuracy", float(right.float().mean()), part=part, n=len(right), unit="fraction")


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
