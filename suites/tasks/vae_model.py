"""The network of the categorical VAE (see `suites.tasks.vae`), its KL divergence, its ELBO, and a training run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from estimators import Estimator
from suites.tasks.base import Sites, seed_of
from suites.tasks.functions import concatenated
from vmo.data import batches
from vmo.learner import Diverged, Learner


class Vae(nn.Module):
    """Encoder and decoder.

    Args:
        mean: mean intensities `(pixels,)`; subtracted from the encoder's input, and the decoder's initial output.
        latents: L, the number of latent variables.
        categories: K, the categories of each.
        layers: hidden layers of each network.
        hidden: width of the hidden layers.
    """

    mean: Tensor

    def __init__(self, mean: Tensor, latents: int, categories: int, layers: int, hidden: int) -> None:
        super().__init__()
        self.shape = (latents, categories)
        pixels, code = len(mean), latents * categories
        self.register_buffer("mean", mean)
        self.encoder = _mlp([pixels, *[hidden] * layers, code])
        self.decoder = _mlp([code, *[hidden] * layers, pixels])
        last = self.decoder[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias.copy_(torch.logit(mean, 1e-3))

    def logits(self, x: Tensor) -> Tensor:
        """Logits of q(z|x), `(B, L, K)`, for binary images `(B, pixels)`."""
        code: Tensor = self.encoder(x - self.mean)
        return code.unflatten(-1, self.shape)

    def reconstruction(self, x: Tensor) -> Callable[[Sites], Tensor]:
        """−log p(x | z) in nats, `(*lead, B)`, as a function of z, `(*lead, B, K)` per latent variable."""

        def f(sample: Sites) -> Tensor:
            pixels = self.decoder(concatenated(sample))
            lost = nn.functional.binary_cross_entropy_with_logits(pixels, x.expand_as(pixels), reduction="none")
            return lost.sum(-1)

        return f


def _mlp(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (inner, outer) in enumerate(itertools.pairwise(sizes)):
        layers += [nn.LeakyReLU(0.3)] * (i > 0) + [nn.Linear(inner, outer)]
    return nn.Sequential(*layers)


def divergence(logits: Tensor) -> Tensor:
    """KL(q ‖ uniform) in nats, `(B,)` from `(B, L, K)`."""
    log_p = torch.log_softmax(logits, -1)
    return (log_p.exp() * log_p).sum((-2, -1)) + logits.shape[-2] * math.log(logits.shape[-1])


class Run:
    """A training run.

    Args:
        vae: the network.
        estimator: the estimator; None (plain): the mean of q is used in place of z.
        images: intensities in [0, 1], `(N, pixels)`, binarised again at every step.
        lr: learning rate of Adam for the network.
        control_lr: learning rate of Adam for the estimator's parameters.
        batch_size: images per step.
        seed: seed of data order, binarisation and noise, each with its own generator.
        steps: steps of the whole run, for temperature schedules; None: temperatures stay.
    """

    def __init__(
        self,
        vae: Vae,
        estimator: Estimator | None,
        images: Tensor,
        *,
        lr: float,
        control_lr: float,
        batch_size: int,
        seed: int,
        steps: int | None = None,
    ) -> None:
        self.vae, self.images, self.batch_size = vae, images, batch_size
        generators = {
            name: torch.Generator(images.device).manual_seed(seed_of("vae", name, seed))
            for name in ("order", "x", "noise")
        }
        self.learner = Learner(
            {"vae": vae},
            {"vae": torch.optim.Adam(vae.parameters(), lr=lr)},
            estimator=estimator,
            control_lr=control_lr,
            generators=generators,
            steps=steps,
        )
        self.left: list[Tensor] = []

    def minibatch(self) -> Tensor:
        """The next minibatch of binary images, `(B, pixels)`."""
        generators = self.learner.generators
        if not self.left:
            self.left = list(batches(len(self.images), self.batch_size, generators["order"]))[::-1]
        return torch.bernoulli(self.images[self.left.pop()], generator=generators["x"])

    def step(self) -> None:
        """One step on the next minibatch."""
        self.train_on(self.minibatch())

    def train_on(self, x: Tensor) -> None:
        """One step on binary images."""
        self.learner.step(lambda: self._gradients(x))

    def _gradients(self, x: Tensor) -> Tensor:
        """The problem, see `vmo.learner`. The loss is `(B,)`, or `()` in plain training."""
        logits = self.vae.logits(x)
        leaf = logits.detach().requires_grad_()  # collects all gradients, so that the encoder has one backward pass
        f, sites = self.vae.reconstruction(x), leaf.unbind(-2)
        divergence(leaf).sum().backward()
        if self.learner.estimator is None:
            loss = f(tuple(torch.softmax(site, -1) for site in sites)).sum()
            loss.backward()
        else:
            loss = self.learner.backward(f, sites)
        logits.backward(leaf.grad)
        return loss

    def tensors(self) -> dict[str, list[Tensor]]:
        """See `Learner.tensors`."""
        return self.learner.tensors()

    def snapshot(self) -> dict[str, Any]:
        """A copy of everything that training changes."""
        return {"learner": self.learner.snapshot(), "left": list(self.left)}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a snapshot."""
        self.learner.restore(state["learner"])
        self.left = list(state["left"])


@torch.no_grad()
def bound(vae: Vae, images: Tensor, samples: int, chunk: int = 500) -> tuple[Tensor, Tensor]:
    """Mean −log p(x | z) and KL of each image in nats, `(N,)` each. Images are binarised with a fixed seed.

    Raises:
        Diverged: the logits are not finite.
    """
    generator = torch.Generator(images.device).manual_seed(0)
    noise = torch.Generator(images.device).manual_seed(1)
    lost, rate = [], []
    for part in images.split(chunk):
        x = torch.bernoulli(part, generator=generator)
        logits = vae.logits(x)
        if not bool(logits.isfinite().all()):
            raise Diverged("the logits are not finite")
        p = torch.softmax(logits, -1)
        drawn = torch.multinomial(p.flatten(0, 1), samples, replacement=True, generator=noise)
        index = drawn.view(len(x), -1, samples).movedim(-1, 0)  # (samples, B, L)
        z = nn.functional.one_hot(index, p.shape[-1]).to(p.dtype)
        lost.append(vae.reconstruction(x)(z.unbind(-2)).mean(0))
        rate.append(divergence(logits))
    return torch.cat(lost), torch.cat(rate)
