"""Models with an encoder: every example has logits of its own ("amortised"). Their training run, and draws from q.

    minimise  Σ_i E_{z ~ q(z|x_i)} f_i(z) + exact terms,    logits of q(z|x) = encoder(x)

The sum is over the examples of a minibatch. Adam is invariant to this factor, and the estimator learns in the units of
f for any minibatch size.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from estimators import Estimator
from suites.tasks.base import Sites, seed_of
from suites.tasks.functions import concatenated
from vmo.data import batches
from vmo.learner import Diverged, Learner

Batch = tuple[Tensor, ...]
"""Inputs `(B, inputs)` of the encoder, and whatever else f needs of each example, `(B, ...)`."""


class Model(nn.Module, ABC):
    """An encoder, and an objective that may have weights.

    Attributes:
        shape: (L, K), the number of categorical variables and their categories.
        encoder: from inputs `(B, inputs)` to `(B, L K)`.
    """

    shape: tuple[int, int]
    encoder: nn.Module
    mean: Tensor

    def __init__(self, mean: Tensor, shape: tuple[int, int], layers: int, hidden: int) -> None:
        """An encoder with `layers` hidden layers; `mean` `(inputs,)` is subtracted from its input."""
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", mean)
        self.encoder = mlp([len(mean), *[hidden] * layers, shape[0] * shape[1]])

    def logits(self, x: Tensor) -> Tensor:
        """Logits of q(z|x), `(B, L, K)`, from inputs `(B, inputs)`."""
        code: Tensor = self.encoder(x - self.mean)
        return code.unflatten(-1, self.shape)

    @abstractmethod
    def objective(self, batch: Batch) -> Callable[[Sites], Tensor]:
        """f, `(*lead, B)`, of z, `(*lead, B, K)` per variable."""

    def weights(self) -> list[nn.Parameter]:
        """The weights of f: all that are not the encoder's."""
        inside = {id(parameter) for parameter in self.encoder.parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in inside]

    def exactly(self, logits: Tensor) -> Tensor | None:
        """The terms that are known exactly, summed over logits `(B, L, K)`; None: there are none."""
        return None

    def observed(self, examples: Batch, generator: torch.Generator) -> Batch:
        """A minibatch of the given examples; what is random about it is drawn from `generator`."""
        return examples


def mlp(sizes: list[int]) -> nn.Sequential:
    """Linear layers of these sizes, with leaky ReLUs in between."""
    layers: list[nn.Module] = []
    for i, (inner, outer) in enumerate(itertools.pairwise(sizes)):
        layers += [nn.LeakyReLU(0.3)] * (i > 0) + [nn.Linear(inner, outer)]
    return nn.Sequential(*layers)


def bernoulli(decoder: nn.Module, pixels: Tensor) -> Callable[[Sites], Tensor]:
    """−log p(pixels | z) in nats, `(*lead, B)`, for binary pixels `(B, P)` and a decoder to their logits."""

    def f(sample: Sites) -> Tensor:
        logits = decoder(concatenated(sample))
        lost = nn.functional.binary_cross_entropy_with_logits(logits, pixels.expand_as(logits), reduction="none")
        return lost.sum(-1)

    return f


class Run:
    """A training run.

    Args:
        model: the model; trained in place.
        estimator: the estimator; None (plain): the mean of q is used in place of z.
        examples: all training examples, `(N, ...)` each.
        name: the task's name, part of every seed.
        lr: learning rate of Adam for the model.
        control_lr: learning rate of Adam for the estimator's parameters.
        batch_size: examples per step.
        seed: seed of data order, minibatches and noise, each with its own generator.
        steps: steps of the whole run, for temperature schedules; None: temperatures stay.
    """

    def __init__(
        self,
        model: Model,
        estimator: Estimator | None,
        examples: Batch,
        *,
        name: str,
        lr: float,
        control_lr: float,
        batch_size: int,
        seed: int,
        steps: int | None = None,
    ) -> None:
        self.model, self.examples, self.batch_size = model, examples, batch_size
        device = examples[0].device
        generators = {
            what: torch.Generator(device).manual_seed(seed_of(name, what, seed)) for what in ("order", "x", "noise")
        }
        self.learner = Learner(
            {name: model},
            {name: torch.optim.Adam(model.parameters(), lr=lr)},
            estimator=estimator,
            control_lr=control_lr,
            generators=generators,
            steps=steps,
        )
        self.left: list[Tensor] = []

    def minibatch(self) -> Batch:
        """The next minibatch."""
        generators = self.learner.generators
        if not self.left:
            self.left = list(batches(len(self.examples[0]), self.batch_size, generators["order"]))[::-1]
        pick = self.left.pop()
        return self.model.observed(tuple(part[pick] for part in self.examples), generators["x"])

    def step(self) -> None:
        """One step on the next minibatch."""
        self.train_on(self.minibatch())

    def train_on(self, batch: Batch) -> None:
        """One step on a minibatch."""
        self.learner.step(lambda: self._gradients(batch))

    def _gradients(self, batch: Batch) -> Tensor:
        """The problem, see `vmo.learner`. The loss is `(B,)`, or `()` in plain training."""
        logits = self.model.logits(batch[0])
        leaf = logits.detach().requires_grad_()  # collects all gradients, so that the encoder has one backward pass
        f, sites = self.model.objective(batch), leaf.unbind(-2)
        exact = self.model.exactly(leaf)
        if exact is not None:
            exact.backward()
        if self.learner.estimator is None:
            loss = f(tuple(torch.softmax(site, -1) for site in sites)).sum()
            if loss.requires_grad:  # f may have neither slopes nor weights
                loss.backward()
        else:
            loss = self.learner.backward(f, sites)
        if leaf.grad is not None:
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
def drawn(model: Model, examples: Batch, samples: int, chunk: int = 500) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """Minibatches of all examples in order, their logits `(B, L, K)`, and f of samples of q, `(samples, B)`.

    What is random is drawn with fixed seeds.

    Raises:
        Diverged: the logits are not finite.
    """
    device = examples[0].device
    generator, noise = (torch.Generator(device).manual_seed(seed) for seed in (0, 1))
    for some in zip(*(part.split(chunk) for part in examples), strict=True):
        batch = model.observed(some, generator)
        logits = model.logits(batch[0])
        if not bool(logits.isfinite().all()):
            raise Diverged("the logits are not finite")
        p = torch.softmax(logits, -1)
        index = torch.multinomial(p.flatten(0, 1), samples, replacement=True, generator=noise)
        index = index.view(len(p), -1, samples).movedim(-1, 0)  # (samples, B, L)
        z = nn.functional.one_hot(index, p.shape[-1]).to(p.dtype)
        yield batch, logits, model.objective(batch)(z.unbind(-2))


def mode(logits: Tensor) -> Sites:
    """The most probable category of every variable, one-hot `(B, K)` per variable, from `(B, L, K)`."""
    return nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype).unbind(-2)
