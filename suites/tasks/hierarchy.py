"""A VAE with two layers of categorical variables, the lower of which depends on the upper one.

    p(x, z, u) = p(x | z) p(z | u) p(u),    q(z, u | x) = q(z | x) q(u | x)
    −ELBO(x) = E_q f(z, u) + E_q log q(z | x) + KL(q(u | x) ‖ p(u)),    f(z, u) = −log p(x | z) − log p(z | u)

z has 16 variables and u has 8, of 10 categories each; p(u) is uniform, and pixels are Bernoulli as in `vae`. Given x,
the approximate posterior q takes all variables as independent. The entropies of q are known exactly, so the
estimator's objective is f. The term log p(z | u) couples the layers: f is not a sum of a term in z and a term in u.

Other papers let q(z | x, u) depend on the sample of u. Then each layer needs an estimator of its own, see
docs/how-to/drop-in.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from suites.tasks.amortised_model import Batch, bernoulli, mlp
from suites.tasks.base import Sites
from suites.tasks.functions import concatenated
from suites.tasks.pixels import Pixels, PixelsTask, decoder

LOWER, UPPER, VALUES = 16, 8, 10


class Hierarchy(Pixels):
    """Encoder, prior p(z | u) and decoder, with one hidden layer each. The sites are those of z, then those of u.

    Args:
        mean: mean intensities `(pixels,)`; subtracted from the encoder's input, and the decoder's initial output.
        hidden: width of the hidden layers.
    """

    def __init__(self, mean: Tensor, hidden: int) -> None:
        super().__init__(mean, (LOWER + UPPER, VALUES), 1, hidden)
        self.prior = mlp([UPPER * VALUES, hidden, LOWER * VALUES])
        self.decoder = decoder(mean, LOWER * VALUES, 1, hidden)

    def objective(self, batch: Batch) -> Callable[[Sites], Tensor]:
        """−log p(x | z) − log p(z | u) in nats."""
        distortion = bernoulli(self.decoder, batch[0])

        def f(sample: Sites) -> Tensor:
            z, u = sample[:LOWER], sample[LOWER:]
            log_p = torch.log_softmax(self.prior(concatenated(u)).unflatten(-1, (LOWER, VALUES)), -1)
            return distortion(z) - (torch.stack(tuple(z), -2) * log_p).sum((-2, -1))

        return f

    def rate(self, logits: Tensor) -> Tensor:
        log_q = torch.log_softmax(logits, -1)
        return (log_q.exp() * log_q).sum((-2, -1)) + UPPER * math.log(VALUES)


class HierarchyTask(PixelsTask):
    """The task of the VAE with two layers."""

    name = "hierarchy"

    def shape(self, how: Any) -> tuple[int, int]:
        return LOWER + UPPER, VALUES

    def model(self, how: Any, examples: Batch) -> Hierarchy:
        return Hierarchy(examples[0].mean(0), how.hidden)
