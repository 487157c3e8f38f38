"""Trains a network together with a distribution q over its architectures, whose logits are φ.

The weights follow the Wide ResNet recipe. φ has its own optimizer without weight decay. The estimator's control variate
has a third. The gradient of φ is the estimate plus the exact gradient of the penalty γ E_q[r(A)].
"""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from estimators.base import Estimator
from estimators.noise import gumbel, uniform
from vmo.compiled import CompiledObjective, compile_network
from vmo.data import Dataset, Split, augment, batches
from vmo.extract import extract
from vmo.learner import Diverged, Learner
from vmo.objective import MinibatchObjective
from vmo.recipe import Recipe
from vmo.schedule import SCHEDULES, Schedule
from vmo.space import Architecture, ArchitectureDistribution, Penalty, Sites
from vmo.target import Target, most_probable
from vmo.wrn import WideResNet


class Trainer:
    """One run. Without a distribution it trains the plain network with the same code.

    Args:
        network: the gated network, on the data's device.
        dataset: training data on the same device.
        recipe: hyperparameters.
        distribution: q, or None for plain training.
        estimator: the estimator of the gradient of q's logits; required with a distribution.
        penalty: γ r(A), a target, or None.
        weight_estimator: None: weights train on the samples of `estimator`, in the same pass. Otherwise they train in a
            pass of their own on samples of this estimator, and `estimator` gives them no gradient. With a single-sample
            score-function estimator these are hard samples, with Concrete soft ones. The gradient of the logits from
            this pass is not used. "mode": weights train on the architecture that is chosen at each step, see `choice`.
        held_out: images that only φ learns from; needs a `weight_estimator`. None: φ and the weights use the same
            minibatch.
        seed: of the data order, the augmentation and the noise. These are three separate streams, so that estimators
            that draw different amounts of noise see the same minibatches.

    Attributes:
        learner: state and step of the run, with the optimizers "weights", "phi" and "control".

    A subclass trains the weights in another way, or chooses the network in another way. It may override `phi`,
    `gradients`, `choice`, `architecture`, `deployed`, `finish`, `expected_width` and `cost`; and `snapshot` and
    `restore`, if it has a state of its own.

    Raises:
        ValueError: arguments that do not work together.
    """

    def __init__(
        self,
        network: WideResNet,
        dataset: Dataset,
        recipe: Recipe,
        *,
        distribution: ArchitectureDistribution | None = None,
        estimator: Estimator | None = None,
        penalty: Penalty | Target | None = None,
        weight_estimator: Estimator | Literal["mode"] | None = None,
        held_out: Split | None = None,
        seed: int = 0,
    ) -> None:
        if (distribution is None) != (estimator is None):
            raise ValueError("a distribution and an estimator go together")
        if distribution is None and not (penalty is None and weight_estimator is None):
            raise ValueError("a penalty or an estimator of the weights needs a distribution")
        if held_out is not None and (distribution is None or weight_estimator is None):
            raise ValueError("images can be held out for φ only where the weights have a pass of their own")
        if held_out is not None and len(held_out) < recipe.batch_size:
            raise ValueError(f"{len(held_out)} images that are held out are no minibatch of {recipe.batch_size}")
        self.network, self.recipe, self.seed = network, recipe, seed
        self.dataset = replace(dataset, pad=int(recipe.crop * dataset.pad))
        self.distribution, self.estimator, self.penalty = distribution, estimator, penalty
        self.weight_estimator = weight_estimator.eval() if isinstance(weight_estimator, Estimator) else weight_estimator
        self.held_out = held_out
        if recipe.compile:
            compile_network(network)
        device = dataset.train.images.device
        self.order, self.augmentation, self.noise = (
            torch.Generator(device).manual_seed(3 * seed + stream) for stream in range(3)
        )
        self.held_order = torch.Generator(device).manual_seed(2**33 + seed)
        self.learner = self._learner()
        # the current epoch: the generator's state at its start, the minibatches done, and the sum of their losses
        self._order_began = self.order.get_state()
        self._done = 0
        self._settled: tuple[int, ...] | None = None
        self._loss = torch.zeros((), device=device)
        if distribution is not None and penalty is not None:
            # copies the penalty's constants to the device now, so that no step waits for it
            penalty.expected(distribution.space, distribution.probabilities())
            for what, reach in penalty.reach(distribution.space).items():
                if 0 < reach < 1e-3:
                    warnings.warn(
                        f"the penalty differs between {what}s by at most {reach:.1e} nats and cannot move q; "
                        "a normalised penalty can",
                        stacklevel=2,
                    )

    @property
    def phi(self) -> torch.nn.Module | None:
        """The module whose parameters are φ; None in plain training."""
        return self.distribution

    def _learner(self) -> Learner:
        recipe, phi = self.recipe, self.phi
        sgd: dict[str, Any] = {"momentum": recipe.momentum, "nesterov": recipe.momentum > 0}
        modules: dict[str, torch.nn.Module] = {"network": self.network}
        optimizers: dict[str, torch.optim.Optimizer] = {
            "weights": torch.optim.SGD(self.network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, **sgd)
        }
        schedules: dict[str, Schedule] = {"weights": functools.partial(SCHEDULES[recipe.schedule], recipe.lr)}
        if phi is not None:
            modules["distribution"] = phi
            if recipe.phi_optimizer == "adam":
                optimizers["phi"] = torch.optim.Adam(phi.parameters(), lr=recipe.phi_lr)
            else:
                optimizers["phi"] = torch.optim.SGD(phi.parameters(), lr=recipe.phi_lr, **sgd)
                schedules["phi"] = functools.partial(SCHEDULES[recipe.schedule], recipe.phi_lr)
        learner = Learner(
            modules,
            optimizers,
            schedules=schedules,
            estimator=self.estimator,
            control_lr=recipe.control_lr,
            generators={
                "order": self.order,
                "augmentation": self.augmentation,
                "noise": self.noise,
                "held_out": self.held_order,
            },
            steps=recipe.epochs * self.steps_per_epoch,
        )
        if phi is not None and not recipe.learn:
            learner.hold()
        return learner

    def objective(self, images: Tensor, labels: Tensor) -> MinibatchObjective:
        """The objective on one minibatch of normalised images."""
        assert self.distribution is not None
        kind = CompiledObjective if self.recipe.compile else MinibatchObjective
        return kind(
            self.network,
            self.distribution.space,
            images,
            labels,
            groups=self.recipe.groups,
            dtype=torch.bfloat16 if self.recipe.bf16 else None,
            slicing=not self.recipe.compile,
        )

    def rows(self, logits: Sites) -> Sites:
        """The logits as the objective needs them: with several groups, one row for each group of the minibatch."""
        groups = self.recipe.groups
        return logits if groups == 1 else tuple(site.expand(groups, -1) for site in logits)

    def minibatches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One shuffled epoch of augmented `(images, labels)`, or the rest of an unfinished one."""
        train = self.dataset.train
        if self._done:
            self.order.set_state(self._order_began)
        self._order_began = self.order.get_state()
        order = batches(len(train), self.recipe.batch_size, self.order, train.images.device)
        for index in itertools.islice(order, self._done, None):
            yield augment(train.images[index], self.dataset, self.augmentation), train.labels[index]

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One update of weights, φ and control variate. Returns the detached loss `()`, on its device.

        Raises:
            Diverged: the logits are not finite (on a GPU this is checked at the end of the epoch).
        """
        self.network.train()
        return self.learner.step(lambda: self._problem(images, labels))

    def _problem(self, images: Tensor, labels: Tensor) -> Tensor:
        """The problem, see `vmo.learner`."""
        loss = self.gradients(images, labels)
        for weight in self.network.parameters():
            if weight.grad is None:  # so that momentum and weight decay act on unused weights too, as with masks
                weight.grad = torch.zeros_like(weight)
        return loss

    def loss(self, images: Tensor, labels: Tensor, **gates: Any) -> Tensor:
        """Cross-entropy `()` of the network with these gates, see `WideResNet.forward`."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            return F.cross_entropy(self.network(images, **gates), labels)

    def gradients(self, images: Tensor, labels: Tensor) -> Tensor:
        """Backpropagate the loss of one minibatch to weights and φ. Returns the loss `()` that the weights train on."""
        q = self.distribution
        if q is None:  # plain
            loss = self.loss(images, labels)
            loss.backward()
        elif self.frozen:
            if self._settled is None:  # read once, because q is fixed and reading it waits for the device
                self._settled = self.choice()
            loss = self._of_choice(images, labels, self._settled)
        else:
            loss = self._of_samples(images, labels, self.rows(q.logits))
            if self.penalty is not None and self.recipe.learn:
                self.penalty.expected(q.space, q.probabilities()).backward()
        return loss

    def _of_samples(self, images: Tensor, labels: Tensor, logits: Sites) -> Tensor:
        """The estimator's pass and, if there is one, the weights' own pass. Returns the loss that weights train on."""
        if self.weight_estimator is None:
            return self.learner.backward(self.objective(images, labels), logits).sum()
        self.network.requires_grad_(False)
        try:
            self.learner.backward(self.objective(*self._of_phi(images, labels)), logits)
        finally:
            self.network.requires_grad_(True)
        if self.weight_estimator == "mode":
            return self._of_choice(images, labels, self.choice())
        return self.learner.estimate(self.objective(images, labels), logits, self.weight_estimator).sum()

    def _of_phi(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The minibatch for φ: that of the weights, or one of the same size from the held-out images."""
        if (held := self.held_out) is None:
            return images, labels
        index = torch.randperm(len(held), generator=self.held_order, device=labels.device)[: len(labels)]
        return augment(held.images[index], self.dataset, self.held_order), held.labels[index]

    def _of_choice(self, images: Tensor, labels: Tensor, choice: tuple[int, ...]) -> Tensor:
        """The loss of one architecture. Backpropagates it to the weights."""
        rows = () if self.recipe.groups == 1 else (self.recipe.groups,)
        index = tuple(torch.full(rows, i, device=images.device) for i in choice)
        loss = self.objective(images, labels).hard(index).sum()
        loss.backward()
        return loss

    def choice(self) -> tuple[int, ...]:
        """The chosen category of each site: the most probable architecture, within the target if there is one.

        If q is not learned it is a sample of q instead, the same at every call: the most probable under Gumbel noise.
        """
        assert self.distribution is not None
        if not self.recipe.learn:
            return next(self.samples())
        return self._chosen(self.distribution.logits)

    def samples(self) -> Iterator[tuple[int, ...]]:
        """Samples of q, the same at every call; with a target the most probable ones within it under Gumbel noise."""
        assert self.distribution is not None
        logits = self.distribution.logits
        generator = torch.Generator(logits[0].device).manual_seed(2**32 + self.seed)
        while True:
            noise = uniform(logits, generator)
            yield self._chosen(tuple(site.detach() + gumbel(u) for site, u in zip(logits, noise, strict=True)))

    def _chosen(self, logits: Sites) -> tuple[int, ...]:
        assert self.distribution is not None
        if isinstance(self.penalty, Target):
            return most_probable(self.distribution.space, logits, self.penalty.cost, self.penalty.ratio)
        return tuple(torch.stack([site.argmax() for site in logits]).tolist())  # waits for the device once

    def architecture(self) -> Architecture:
        """The run's architecture: that of `choice`, or the whole network in plain training."""
        if self.distribution is not None:
            return self.distribution.space.architecture(self.choice())
        widths = self.network.config.widths
        return Architecture(len(widths), widths)

    def deployed(self) -> WideResNet:
        """The compact network of `architecture`, a copy. Its BN statistics are to be measured again."""
        return extract(self.network, self.architecture())

    def finish(self) -> None:
        """Called once, after the last epoch. Makes the final choice of the network, if that needs more than φ."""

    def expected_width(self) -> float | None:
        """The mean over blocks of the expected fraction of channels; None in plain training."""
        return None if self.distribution is None else float(self.distribution.expected_width())

    def cost(self) -> float | None:
        """The MACs of the whole run, as a multiple of those of plain training for as many epochs. None: not known."""
        return None

    @property
    def steps_per_epoch(self) -> int:
        return len(self.dataset.train) // self.recipe.batch_size

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return (self.recipe.epochs + self.recipe.continued) * self.steps_per_epoch

    @property
    def frozen(self) -> bool:
        """Whether q is fixed by now and only the weights of one architecture train."""
        last = self.recipe.freeze + self.recipe.continued
        return last > 0 and self.learner.step_count >= self.steps - last * self.steps_per_epoch

    def epoch(self, on_step: Callable[[], None] | None = None) -> float:
        """One epoch, or the rest of one after `restore`. Returns the mean training loss of the whole epoch.

        Args:
            on_step: called after every step; a snapshot taken there resumes with the next step.

        Raises:
            Diverged: the loss is not finite, or φ is not.
        """
        recipe = self.recipe
        if recipe.continued and self.learner.step_count == recipe.epochs * self.steps_per_epoch:
            self.learner.begin_anew(recipe.continued * self.steps_per_epoch)
        for images, labels in self.minibatches():
            self._loss += self.step(images, labels)
            self._done += 1
            if on_step is not None:
                on_step()
        mean = float(self._loss) / self._done
        self._done = 0
        self._loss.zero_()
        if not math.isfinite(mean):
            raise Diverged(f"the training loss is {mean} after {self.learner.step_count} steps")
        if self.phi is not None and not all(bool(one.isfinite().all()) for one in self.phi.parameters()):
            raise Diverged(f"the logits are not finite after {self.learner.step_count} steps")
        return mean

    def snapshot(self) -> dict[str, Any]:
        """A copy of everything that training changes: nested dicts and lists of tensors and plain numbers."""
        epoch = {"done": self._done, "loss": self._loss.clone(), "order_began": self._order_began}
        return {"learner": self.learner.snapshot(), "epoch": epoch}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a snapshot. The run then continues exactly as it did from there."""
        self.learner.restore(state["learner"])
        epoch, self._settled = state["epoch"], None
        self._done, self._loss, self._order_began = epoch["done"], epoch["loss"].clone(), epoch["order_began"]
