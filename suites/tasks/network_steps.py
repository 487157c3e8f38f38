"""A single training step of a network, and blank data for timing it and counting its memory."""

from __future__ import annotations

import torch
from torch import Tensor

from vmo.config import WideResNetConfig
from vmo.data import Dataset, Split
from vmo.train import Trainer

SIDE = 32  # pixels


class Step:
    """A training step on one fixed minibatch."""

    def __init__(self, trainer: Trainer, images: Tensor, labels: Tensor) -> None:
        self.trainer, self.images, self.labels = trainer, images, labels

    def step(self) -> None:
        self.trainer.step(self.images, self.labels)

    def tensors(self) -> dict[str, list[Tensor]]:
        return self.trainer.learner.tensors()


def blank(config: WideResNetConfig, batch: int, device: torch.device) -> tuple[Dataset, Tensor]:
    """A data set of one minibatch, and normalised images `(batch, C, 32, 32)`.

    Time and memory do not depend on the content of images.
    """
    pixels = torch.zeros(batch, config.channels, SIDE, SIDE, dtype=torch.uint8, device=device)
    split = Split(pixels, torch.zeros(batch, dtype=torch.int64, device=device))
    data = Dataset("blank", split, split, config.classes, (0.0,) * 3, (1.0,) * 3, 4, True)
    return data, torch.randn(pixels.shape, device=device)
