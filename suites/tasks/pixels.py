"""Variational autoencoders of images with Bernoulli pixels: what they share, and their ELBO."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from results.table import row
from suites.tasks.amortised import SAMPLES, AmortisedTask
from suites.tasks.amortised_model import Batch, Model, drawn, mlp


class Pixels(Model):
    """A VAE. An example is an image, intensities in [0, 1], binarised again in every minibatch.

    −ELBO(x) = E_q f + rate, where the rate is known exactly.
    """

    def observed(self, examples: Batch, generator: torch.Generator) -> Batch:
        return (torch.bernoulli(examples[0], generator=generator),)

    @abstractmethod
    def rate(self, logits: Tensor) -> Tensor:
        """The terms of −ELBO beside E f in nats, `(B,)` from logits `(B, L, K)`."""

    def exactly(self, logits: Tensor) -> Tensor:
        return self.rate(logits).sum()


class PixelsTask(AmortisedTask):
    """A task whose model is a `Pixels`."""

    curve = ("curve_elbo", "nats")

    def examples(self) -> tuple[Batch, Batch]:
        train, test = self.images
        return (train.flatten(1),), (test.flatten(1),)

    def blank(self, count: int) -> Batch:
        return (torch.zeros(count, 28 * 28, device=self.context.device),)

    def value(self, model: Model, examples: Batch) -> float:
        lost, rate = bound(model, examples[0], 1)
        return -float((lost + rate).mean())

    def rows(self, model: Model, part: str, examples: Batch) -> Iterator[dict[str, Any]]:
        """The ELBO in nats."""
        lost, rate = bound(model, examples[0], SAMPLES)
        yield row("elbo", -float((lost + rate).mean()), part=part, n=len(lost), unit="nats")


def decoder(mean: Tensor, code: int, layers: int, hidden: int) -> nn.Sequential:
    """From a code `(..., code)` to logits of pixels `(..., pixels)`; the last bias begins at the logits of `mean`."""
    made = mlp([code, *[hidden] * layers, len(mean)])
    last = made[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.bias.copy_(torch.logit(mean, 1e-3))
    return made


def bound(model: Model, images: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Mean of f over samples of q, and the rate, in nats, `(N,)` each. Images are binarised with a fixed seed.

    Raises:
        Diverged: the logits are not finite.
    """
    assert isinstance(model, Pixels)
    found = [(f.mean(0), model.rate(logits)) for _, logits, f in drawn(model, (images,), samples)]
    lost, rate = zip(*found, strict=True)
    return torch.cat(lost), torch.cat(rate)
