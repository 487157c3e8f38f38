"""Evaluation of a plain network: BN statistics are measured on training images, loss and accuracy on other images."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from vmo.data import Dataset, Split, normalise
from vmo.wrn import WideResNet


@torch.no_grad()
def recalibrate(network: WideResNet, dataset: Dataset, batch_size: int = 256, limit: int = 50) -> None:
    """Replace BN's running statistics by their mean over at most `limit` unaugmented training minibatches.

    They are the first ones. If the images of each class stand together, they are drawn at random instead, the same in
    every run.
    Leaves the network in eval mode.
    """
    network.train()
    seen = 0
    images, labels = dataset.train.images, dataset.train.labels
    if int((labels.diff() != 0).sum()) < dataset.classes:  # each class stands together: the first ones are of few
        order = np.random.RandomState(0).permutation(len(images))  # numpy guarantees its stream
        images = images[torch.from_numpy(order[: batch_size * limit]).to(images.device)]
    for chunk in images.split(batch_size)[:limit]:
        seen += len(chunk)
        network(normalise(chunk, dataset), momentum=len(chunk) / seen)
    network.eval()


@torch.no_grad()
def evaluate(network: WideResNet, split: Split, dataset: Dataset, batch_size: int = 500) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy in [0, 1] of a plain network in eval mode, on unaugmented images."""
    network.eval()
    loss = torch.zeros((), device=split.images.device)
    correct = torch.zeros((), dtype=torch.int64, device=split.images.device)
    for images, labels in zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True):
        logits = network(normalise(images, dataset))
        loss += F.cross_entropy(logits, labels, reduction="sum")
        correct += (logits.argmax(-1) == labels).sum()
    return float(loss) / len(split), int(correct) / len(split)
