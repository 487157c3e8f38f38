"""Training of a network with a distribution over its architectures: one step, one epoch, evaluation.

The weights follow the Wide ResNet recipe; φ has an optimizer of its own without weight decay; an estimator's control
variate has a third. The step of φ is the estimator's gradient plus that of the penalty γ E_q[r(A)], which is exact.
"""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from estimators.base import Estimator
from estimators.noise import gumbel, uniform
from vmo.compiled import CompiledObjective, compile_network
from vmo.data import Dataset, Split, augment, batches, normalise
from vmo.objective import MinibatchObjective
from vmo.schedule import step_decay
from vmo.space import Architecture, ArchitectureDistribution, Penalty
from vmo.target import Target, most_probable
from vmo.wrn import WideResNet


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the defaults are those of Wide ResNets on CIFAR.

    Args:
        epochs: passes over the training set; the last partial minibatch of each is skipped.
        batch_size: images per step.
        lr: of the weights: SGD with Nesterov momentum, multiplied by 0.2 at 30, 60 and 80 % of the run.
        momentum: of that SGD.
        weight_decay: on all weights.
        phi_lr: of the logits.
        phi_optimizer: "adam", or "sgd" for the weights' own optimizer and schedule without weight decay.
        control_lr: Adam's, for the parameters of control variates.
        groups: architectures per step, each on its own part of the minibatch.
        freeze: epochs at the end in which q stays as it is and the weights of its most probable architecture train on
            alone, as the VMO paper proposes against lost accuracy.
        learn: whether q is learned. If not it stays as it begins, and the run comes to a sample of it.
        bf16: autocast to bfloat16.
        compile: compile the network; samples then are masks and not slices, see `vmo.compiled`.
    """

    epochs: int = 200
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    phi_lr: float = 1e-2
    phi_optimizer: str = "adam"
    control_lr: float = 1e-2
    groups: int = 1
    freeze: int = 0
    learn: bool = True
    bf16: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if self.phi_optimizer not in ("adam", "sgd"):
            raise ValueError(f"phi_optimizer must be 'adam' or 'sgd', got {self.phi_optimizer!r}")
        for name in ("epochs", "batch_size", "groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.freeze <= self.epochs:
            raise ValueError(f"freeze must lie in 0 … {self.epochs} epochs, got {self.freeze}")
        if self.batch_size % self.groups:
            raise ValueError(f"groups must divide the batch size of {self.batch_size}, got {self.groups}")


class Diverged(ArithmeticError):
    """The training loss is no longer finite."""


class Trainer:
    """One run. Without a distribution it trains the plain network by the same code path.

    Args:
        network: the gated network, on the data's device.
        dataset: training data on the same device.
        recipe: hyperparameters.
        distribution: q, or None for plain training.
        estimator: of the gradient of q's logits; needed with a distribution.
        penalty: γ r(A), a target, or None.
        weight_estimator: None: weights train on the samples of `estimator`, as they come. Otherwise on those of this
            one, in a pass of their own whose gradient of the logits is not used, while `estimator` leaves them alone.
            Any single-sample score-function estimator makes it a pass on hard samples, Concrete one on soft samples.
        seed: of data order, augmentation and noise, from three separate streams, so that estimators that draw
            different amounts of noise see the same minibatches.
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
        weight_estimator: Estimator | None = None,
        seed: int = 0,
    ) -> None:
        if (distribution is None) != (estimator is None):
            raise ValueError("a distribution and an estimator go together")
        self.network, self.dataset, self.recipe, self.seed = network, dataset, recipe, seed
        self.distribution, self.estimator, self.penalty = distribution, estimator, penalty
        self.weight_estimator = None if weight_estimator is None else weight_estimator.eval()
        if recipe.compile:
            compile_network(network)
        device = dataset.train.images.device
        self.order, self.augmentation, self.noise = (
            torch.Generator(device).manual_seed(3 * seed + stream) for stream in range(3)
        )
        self.step_count = 0
        # the epoch under way: where its order began, how many minibatches of it are done, and the sum of their losses
        self._order_began = self.order.get_state()
        self._done = 0
        self._settled: tuple[Tensor, ...] | None = None
        self._loss = torch.zeros((), device=device)
        self.steps = recipe.epochs * (len(dataset.train) // recipe.batch_size)
        sgd: dict[str, Any] = {"lr": recipe.lr, "momentum": recipe.momentum, "nesterov": recipe.momentum > 0}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "weights": torch.optim.SGD(network.parameters(), weight_decay=recipe.weight_decay, **sgd)
        }
        if distribution is not None and estimator is not None:
            phi = list(distribution.parameters())
            self.optimizers["phi"] = (
                torch.optim.Adam(phi, lr=recipe.phi_lr)
                if recipe.phi_optimizer == "adam"
                else torch.optim.SGD(phi, **{**sgd, "lr": recipe.phi_lr})
            )
            control = list(estimator.parameters())
            if control:
                self.optimizers["control"] = torch.optim.Adam(control, lr=recipe.control_lr)
            if penalty is not None:  # what it needs on the device is copied there now, and no step waits for it
                penalty.expected(distribution.space, distribution.probabilities())
            for what, reach in ({} if penalty is None else penalty.reach(distribution.space)).items():
                if 0 < reach < 1e-3:
                    warnings.warn(
                        f"the penalty tells {what}s apart by at most {reach:.1e} nats and cannot move q; "
                        "a normalised penalty can",
                        stacklevel=2,
                    )

    @property
    def progress(self) -> float:
        """The part of the run that is done, in [0, 1]."""
        return min(1.0, self.step_count / max(1, self.steps))

    def objective(self, images: Tensor, labels: Tensor) -> MinibatchObjective:
        """The objective of one minibatch of normalised images."""
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

    def minibatches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One shuffled epoch of augmented `(images, labels)`, or the rest of one that `epoch` had begun."""
        train = self.dataset.train
        if self._done:
            self.order.set_state(self._order_began)
        self._order_began = self.order.get_state()
        order = batches(len(train), self.recipe.batch_size, self.order, train.images.device)
        for index in itertools.islice(order, self._done, None):
            yield augment(train.images[index], self.dataset, self.augmentation), train.labels[index]

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One update of weights, φ and control variate; the detached loss `()`, still on the device.

        Raises:
            Diverged: the logits are not finite (on a GPU this is seen in the loss, at the end of the epoch).
        """
        self.network.train()
        for name, optimizer in self.optimizers.items():
            optimizer.zero_grad(set_to_none=True)
            if name == "weights" or (name == "phi" and self.recipe.phi_optimizer == "sgd"):
                base = self.recipe.lr if name == "weights" else self.recipe.phi_lr
                for group in optimizer.param_groups:
                    group["lr"] = step_decay(base, self.progress)
        if self.distribution is None or self.estimator is None:  # plain
            with torch.autocast(images.device.type, torch.bfloat16, enabled=self.recipe.bf16):
                loss = F.cross_entropy(self.network(images), labels)
            loss.backward()
        elif self.frozen:
            rows = () if self.recipe.groups == 1 else (self.recipe.groups,)
            if self._settled is None:  # q moves no more, and to read it waits for the device
                self._settled = tuple(torch.tensor(i, device=images.device) for i in self.choice())
            loss = self.objective(images, labels).hard(tuple(i.expand(rows) for i in self._settled)).sum()
            loss.backward()
        else:
            self.estimator.anneal(self.progress)
            logits = self.distribution.logits
            try:
                if self.weight_estimator is None:
                    loss = self.estimate(images, labels, self.estimator, logits, self.noise)
                else:
                    loss = self._apart(images, labels, self.weight_estimator)
            except ValueError:  # what estimators say of logits that are no distribution
                if all(bool(torch.isfinite(site).all()) for site in logits):
                    raise
                raise Diverged(f"the logits are not finite after {self.step_count} steps") from None
            if self.penalty is not None and self.recipe.learn:
                self.penalty.expected(self.distribution.space, self.distribution.probabilities()).backward()
        for weight in self.network.parameters():
            if weight.grad is None:  # momentum and λ‖w‖² reach what this sample left out, as they do where it is masked
                weight.grad = torch.zeros_like(weight)
        for name, optimizer in self.optimizers.items():
            if name != "phi" or self.recipe.learn:
                optimizer.step()
        self.step_count += 1
        return loss.detach()

    def choice(self) -> tuple[int, ...]:
        """The category of each site that q stands for: the most probable, within the target where there is one.

        Of a q that is not learned, a sample, the same whenever it is asked for: the most probable under Gumbel noise.
        """
        assert self.distribution is not None
        logits = self.distribution.logits
        if not self.recipe.learn:
            generator = torch.Generator(logits[0].device).manual_seed(2**32 + self.seed)
            noise = uniform(logits, generator)
            logits = tuple(site.detach() + gumbel(u) for site, u in zip(logits, noise, strict=True))
        if isinstance(self.penalty, Target):
            return most_probable(self.distribution.space, logits, self.penalty.cost, self.penalty.ratio)
        return tuple(int(site.argmax()) for site in logits)

    def architecture(self) -> Architecture:
        """The network that the run has come to: that of `choice`, or the whole of a plain one."""
        if self.distribution is not None:
            return self.distribution.space.architecture(self.choice())
        widths = self.network.config.widths
        return Architecture(len(widths), widths)

    @property
    def frozen(self) -> bool:
        """Whether q no longer moves."""
        last = self.recipe.freeze * (self.steps // self.recipe.epochs)
        return last > 0 and self.step_count >= self.steps - last

    def _apart(self, images: Tensor, labels: Tensor, weight_estimator: Estimator) -> Tensor:
        """A step whose weights have a pass of their own; the loss of that pass."""
        assert self.distribution is not None and self.estimator is not None
        logits = self.distribution.logits
        self.network.requires_grad_(False)
        try:
            self.estimate(images, labels, self.estimator, logits, self.noise)
        finally:
            self.network.requires_grad_(True)
        weight_estimator.anneal(self.progress)
        return self.estimate(images, labels, weight_estimator, tuple(site.detach() for site in logits), self.noise)

    def estimate(
        self,
        images: Tensor,
        labels: Tensor,
        estimator: Estimator,
        logits: Sequence[Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """`estimator.backward` on one minibatch, split in groups where the recipe says so; the loss `()`."""
        groups = self.recipe.groups
        rows = logits if groups == 1 else tuple(site.expand(groups, -1) for site in logits)
        return estimator.backward(self.objective(images, labels), rows, generator=generator).sum()

    def epoch(self, on_step: Callable[[], None] | None = None) -> float:
        """One epoch, or the rest of one that a snapshot was taken in; the mean training loss of all of it.

        Args:
            on_step: called after every step; a snapshot taken there is restored to go on with the next.

        Raises:
            Diverged: the loss is not finite.
        """
        for images, labels in self.minibatches():
            self._loss += self.step(images, labels)
            self._done += 1
            if on_step is not None:
                on_step()
        mean = float(self._loss) / self._done
        self._done = 0
        self._loss.zero_()
        if mean != mean or mean in (float("inf"), float("-inf")):
            raise Diverged(f"the training loss is {mean} after {self.step_count} steps")
        return mean

    def snapshot(self) -> dict[str, Any]:
        """A copy of everything that training changes: nested dicts and lists of tensors and plain numbers."""
        state = {"network": dict(self.network.state_dict()), "step": self.step_count}
        state |= {"done": self._done, "loss": self._loss, "order_began": self._order_began}
        state |= {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        if self.distribution is not None and self.estimator is not None:
            state["distribution"] = dict(self.distribution.state_dict())
            state["estimator"] = dict(self.estimator.state_dict())
        state["generators"] = [g.get_state() for g in (self.order, self.augmentation, self.noise)]
        return copy.deepcopy(state)

    def restore(self, state: dict[str, Any]) -> None:
        """Return to a snapshot, from which the run goes on exactly as it went on then."""
        state = copy.deepcopy(state)
        self._done, self._loss, self._order_began = state["done"], state["loss"], state["order_began"]
        self.network.load_state_dict(state["network"])
        self.step_count, self._settled = state["step"], None
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])
        if self.distribution is not None and self.estimator is not None:
            self.distribution.load_state_dict(state["distribution"])
            self.estimator.load_state_dict(state["estimator"])
        for generator, saved in zip((self.order, self.augmentation, self.noise), state["generators"], strict=True):
            generator.set_state(saved)


@torch.no_grad()
def recalibrate(network: WideResNet, dataset: Dataset, batch_size: int = 256, limit: int = 50) -> None:
    """Replace BN's running statistics by their mean over up to `limit` unaugmented training minibatches.

    Leaves the network in eval mode.
    """
    network.train()
    seen = 0
    for chunk in dataset.train.images.split(batch_size)[:limit]:
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
