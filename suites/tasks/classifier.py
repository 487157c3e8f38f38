"""Classifiers of images that depend on a discrete z: their objective, examples and accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from results.table import row
from suites.tasks.amortised import AmortisedTask, at_mode
from suites.tasks.amortised_model import Batch, Model
from suites.tasks.base import Sites


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
