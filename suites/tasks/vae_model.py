"""The network of the categorical VAE (see `suites.tasks.vae`), its KL divergence and its ELBO."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from suites.tasks.amortised_model import Batch, Model, bernoulli, drawn, mlp
from suites.tasks.base import Sites


class Vae(Model):
    """Encoder and decoder. An example is an image, intensities in [0, 1], binarised again in every minibatch.

    Args:
        mean: mean intensities `(pixels,)`; subtracted from the encoder's input, and the decoder's initial output.
        latents: L, the number of latent variables.
        categories: K, the categories of each.
        layers: hidden layers of each network.
        hidden: width of the hidden layers.
    """

    def __init__(self, mean: Tensor, latents: int, categories: int, layers: int, hidden: int) -> None:
        super().__init__(mean, (latents, categories), layers, hidden)
        self.decoder = mlp([latents * categories, *[hidden] * layers, len(mean)])
        last = self.decoder[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias.copy_(torch.logit(mean, 1e-3))

    def observed(self, examples: Batch, generator: torch.Generator) -> Batch:
        return (torch.bernoulli(examples[0], generator=generator),)

    def objective(self, batch: Batch) -> Callable[[Sites], Tensor]:
        """−log p(x | z) in nats."""
        return bernoulli(self.decoder, batch[0])

    def exactly(self, logits: Tensor) -> Tensor:
        return divergence(logits).sum()


def divergence(logits: Tensor) -> Tensor:
    """KL(q ‖ uniform) in nats, `(B,)` from `(B, L, K)`."""
    log_p = torch.log_softmax(logits, -1)
    return (log_p.exp() * log_p).sum((-2, -1)) + logits.shape[-2] * math.log(logits.shape[-1])


def bound(vae: Vae, images: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Mean −log p(x | z) and KL of each image in nats, `(N,)` each. Images are binarised with a fixed seed.

    Raises:
        Diverged: the logits are not finite.
    """
    found = [(f.mean(0), divergence(logits)) for _, logits, f in drawn(vae, (images,), samples)]
    lost, rate = zip(*found, strict=True)
    return torch.cat(lost), torch.cat(rate)
