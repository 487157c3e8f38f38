"""The network of the categorical VAE (see `suites.tasks.vae`) and its KL divergence."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from suites.tasks.amortised_model import Batch, bernoulli
from suites.tasks.base import Sites
from suites.tasks.pixels import Pixels, decoder


class Vae(Pixels):
    """Encoder and decoder.

    Args:
        mean: mean intensities `(pixels,)`; subtracted from the encoder's input, and the decoder's initial output.
        latents: L, the number of latent variables.
        categories: K, the categories of each.
        layers: hidden layers of each network.
        hidden: width of the hidden layers.
    """

    def __init__(self, mean: Tensor, latents: int, categories: int, layers: int, hidden: int) -> None:
        super().__init__(mean, (latents, categories), layers, hidden)
        self.decoder = decoder(mean, latents * categories, layers, hidden)

    def objective(self, batch: Batch) -> Callable[[Sites], Tensor]:
        """−log p(x | z) in nats."""
        return bernoulli(self.decoder, batch[0])

    def rate(self, logits: Tensor) -> Tensor:
        return divergence(logits)


def divergence(logits: Tensor) -> Tensor:
    """KL(q ‖ uniform) in nats, `(B,)` from `(B, L, K)`."""
    log_p = torch.log_softmax(logits, -1)
    return (log_p.exp() * log_p).sum((-2, -1)) + logits.shape[-2] * math.log(logits.shape[-1])
