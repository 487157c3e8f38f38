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
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from results.table import row
from suites.tasks.amortised import SAMPLES, AmortisedTask
from suites.tasks.amortised_model import Batch, Model, bernoulli, drawn, mlp
from suites.tasks.base import Sites
from suites.tasks.functions import concatenated

LOWER, UPPER, VALUES = 16, 8, 10


class Hierarchy(Model):
    """Encoder, prior p(z | u) and decoder, with one hidden layer each. The sites are those of z, then those of u.

    An example is an image, intensities in [0, 1], binarised again in every minibatch.

    Args:
        mean: mean intensities `(pixels,)`; subtracted from the encoder's input, and the decoder's initial output.
        hidden: width of the hidden layers.
    """

    def __init__(self, mean: Tensor, hidden: int) -> None:
        super().__init__(mean, (LOWER + UPPER, VALUES), 1, hidden)
        self.prior = mlp([UPPER * VALUES, hidden, LOWER * VALUES])
        self.decoder = mlp([LOWER * VALUES, hidden, len(mean)])
        last = self.decoder[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias.copy_(torch.logit(mean, 1e-3))

    def observed(self, examples: Batch, generator: torch.Generator) -> Batch:
        return (torch.bernoulli(examples[0], generator=generator),)

    def objective(self, batch: Batch) -> Callable[[Sites], Tensor]:
        """−log p(x | z) − log p(z | u) in nats."""
        distortion = bernoulli(self.decoder, batch[0])

        def f(sample: Sites) -> Tensor:
            z, u = sample[:LOWER], sample[LOWER:]
            log_p = torch.log_softmax(self.prior(concatenated(u)).unflatten(-1, (LOWER, VALUES)), -1)
            return distortion(z) - (torch.stack(tuple(z), -2) * log_p).sum((-2, -1))

        return f

    def rate(self, logits: Tensor) -> Tensor:
        """Σ E log q + UPPER · log K, the terms of −ELBO beside E f, in nats: `(B,)` from `(B, L, K)`."""
        log_q = torch.log_softmax(logits, -1)
        return (log_q.exp() * log_q).sum((-2, -1)) + UPPER * math.log(VALUES)

    def exactly(self, logits: Tensor) -> Tensor:
        return self.rate(logits).sum()


class HierarchyTask(AmortisedTask):
    """The task of the VAE with two layers."""

    name = "hierarchy"
    curve = ("curve_elbo", "nats")

    def shape(self, how: Any) -> tuple[int, int]:
        return LOWER + UPPER, VALUES

    def examples(self) -> tuple[Batch, Batch]:
        train, test = self.images
        return (train.flatten(1),), (test.flatten(1),)

    def blank(self, count: int) -> Batch:
        return (torch.zeros(count, 28 * 28, device=self.context.device),)

    def model(self, how: Any, examples: Batch) -> Hierarchy:
        return Hierarchy(examples[0].mean(0), how.hidden)

    def value(self, model: Model, examples: Batch) -> float:
        return float(elbo(model, examples, 1).mean())

    def rows(self, model: Model, part: str, examples: Batch) -> Iterator[dict[str, Any]]:
        """The ELBO in nats."""
        found = elbo(model, examples, SAMPLES)
        yield row("elbo", float(found.mean()), part=part, n=len(found), unit="nats")


def elbo(model: Model, examples: Batch, samples: int) -> Tensor:
    """The ELBO of each image in nats, `(N,)`, with f averaged over samples of q."""
    assert isinstance(model, Hierarchy)
    return torch.cat([-f.mean(0) - model.rate(logits) for _, logits, f in drawn(model, examples, samples)])
