"""MNIST for the experiments that train on it: intensities, minibatches and the average loss of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from suites.scripts.published.experiment import Asked
from vmo.data import batches, load

NAME = "mnist"


def intensities(root: Path | None) -> tuple[Tensor, Tensor]:
    """Training and test images in [0, 1], `(N, 784)`. Raises `vmo.data.DataError` if they are missing."""
    found = load(NAME, root)
    train, test = (split.images.float().mean(1).flatten(1) / 255 for split in (found.train, found.test))
    return train, test


def train(
    asked: Asked,
    images: Tensor,
    batch: int,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[Tensor], Tensor],
) -> float:
    """Train for `asked.length` epochs. Returns the average loss of the last epoch, in nats per image.

    Args:
        asked: the run.
        images: `(N, pixels)`.
        batch: images per step; a last partial minibatch is skipped.
        optimizer: of all weights.
        loss_of: the mean loss of a minibatch.
    """
    order = torch.Generator().manual_seed(asked.seed)
    steps = len(images) // batch
    losses: list[float] = []
    waiting: Iterator[Tensor] = iter(())
    for step in asked.watch(asked.length * steps):
        if (step - 1) % steps == 0:
            losses, waiting = [], iter(batches(len(images), batch, order))
        optimizer.zero_grad()
        loss = loss_of(images[next(waiting)])
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return sum(losses) / len(losses)


def layers(sizes: Sequence[int], seed: int) -> torch.nn.Sequential:
    """Linear layers with ReLU between them, with PyTorch's initial weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: list[torch.nn.Module] = []
        for i in range(len(sizes) - 1):
            made += [torch.nn.ReLU()] * (i > 0) + [torch.nn.Linear(sizes[i], sizes[i + 1])]
    return torch.nn.Sequential(*made)
