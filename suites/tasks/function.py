"""Tasks whose objective is a function of the sample and nothing else: no weights, no data, logits trained by Adam.

One is a `Function` and a few lines, see `toy`. What they share is the step, the points of a run with exact gradients at
which estimators are measured, and a whole run.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

import estimators
from estimators import Estimate, Estimator
from estimators.algebra import softmax
from estimators.sitewise import Stacked, layout_of, sitewise, stacks
from results.table import row
from suites.tasks.base import Make, Point, Sites, Task, seed_of
from vmo.checkpoint import Keeper
from vmo.train import Diverged

POINTS = {"uniform": 0.0, "mid": 0.2, "peaked": 1.0}
LR = 0.01  # of Adam on φ, as in the toy of RELAX
NUMBERS = 9  # logits of the toy, for which the preset's number of estimates is meant


class Function(ABC):
    """f of a sample `(*lead, K_l)` per site, smooth off the vertices, `(*lead)`."""

    sizes: tuple[int, ...]
    device = torch.device("cpu")

    @abstractmethod
    def __call__(self, sample: Sites) -> Tensor:
        """f, for samples with any leading dimensions that broadcast against each other."""

    def expectation(self, logits: Sites) -> Estimate:
        """E_q f and its gradient, exactly; here by enumeration."""
        return self._exact.estimate(self, logits, ())

    @functools.cached_property
    def _exact(self) -> Estimator:
        return estimators.get("exact", sizes=self.sizes)

    def minimum(self) -> float:
        """The least f of all vertices; here by enumeration."""
        grids = torch.meshgrid(*(torch.arange(size) for size in self.sizes), indexing="ij")
        pairs = zip(grids, self.sizes, strict=True)
        corners = tuple(torch.nn.functional.one_hot(grid.flatten(), size).float() for grid, size in pairs)
        return float(self(tuple(corner.to(self.device) for corner in corners)).min())


def aligned(sample: Sites) -> Sites:
    """`(*lead, K_l)`, the leading dimensions broadcast against each other."""
    leads = {site.shape[:-1] for site in sample}
    if len(leads) == 1:  # nearly always, and a view of each of many sites takes longer than f
        return sample
    lead = torch.broadcast_shapes(*leads)
    return [site.expand(*lead, -1) for site in sample]


def concatenated(sample: Sites) -> Tensor:
    """`(*lead, Σ K)`, the sites side by side."""
    return torch.cat(tuple(aligned(sample)), -1)


class Step:
    """A step of Adam on φ, with an estimator or (plain) by evaluating f forward and backward once by hand.

    Args:
        f: the objective.
        estimator: or None for plain.
        rows: independent estimates per step, of whose mean the step is made.
        control_lr: of Adam on what the estimator learns.
        seed: of the noise.
        device: of everything.
    """

    def __init__(
        self, f: Function, estimator: Estimator | None, rows: int, control_lr: float, seed: int, device: torch.device
    ) -> None:
        self.f, self.rows, self.estimator = f, rows, estimator
        self.layout = layout_of(f.sizes)  # sites of a size are one parameter: an optimizer takes its time for each
        self.leaves = [torch.zeros(len(at), f.sizes[at[0]], device=device, requires_grad=True) for at in self.layout]
        self.generator = torch.Generator(device).manual_seed(seed)
        self.optimizers = [torch.optim.Adam(self.leaves, lr=LR)]
        if estimator is not None and (control := list(estimator.parameters())):
            self.optimizers.append(torch.optim.Adam(control, lr=control_lr))

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        leaves = self.leaves
        if self.rows > 1:
            leaves = [leaf.expand(self.rows, *leaf.shape) for leaf in leaves]
        logits = Stacked(leaves, self.layout)
        if self.estimator is None:
            self.f(sitewise(softmax, logits)).sum().backward()
        else:
            self.estimator.backward(self.f, logits, generator=self.generator)
        if self.rows > 1:  # the mean, of gradients and not of f, in whose units the estimator learns
            for leaf in self.leaves:
                assert leaf.grad is not None
                leaf.grad /= self.rows
        for optimizer in self.optimizers:
            optimizer.step()

    @property
    def logits(self) -> Sites:
        """φ, `(K_l,)` per site, detached."""
        return Stacked((leaf.detach() for leaf in self.leaves), self.layout)

    def tensors(self) -> dict[str, list[Tensor]]:
        own = [] if self.estimator is None else [*self.estimator.parameters(), *self.estimator.buffers()]
        state = [t for o in self.optimizers for s in o.state.values() for t in s.values() if isinstance(t, Tensor)]
        return {"parameters": [*self.leaves, *own], "optimizer": state}


class FunctionTask(Task):
    """A task whose subclass gives `function`."""

    plain = False
    rows = 1
    shape: ClassVar[tuple[str, ...]] = ()
    """Fields of the preset that the function depends on."""
    length = "toy_steps"
    """The field that is the number of training steps."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.settings = {
            "bias": (*cls.shape, cls.length, "toy_estimates", "ride", "control_lr"),
            "variance": (*cls.shape, cls.length, "toy_estimates", "ride", "control_lr"),
            "memory": cls.shape,
            "overhead": (*cls.shape, "overhead_pairs"),
            "accuracy": (*cls.shape, cls.length, "control_lr"),
        }

    @property
    def steps(self) -> int:
        """Of training."""
        return int(getattr(self.preset, self.length))

    @abstractmethod
    def function(self) -> Function:
        """f, on the context's device."""

    def sizes(self, suite: str) -> tuple[int, ...]:
        return self.function().sizes

    def estimates(self, evaluations: int) -> int:
        numbers = sum(self.function().sizes)
        return max(20, self.preset.toy_estimates * NUMBERS // numbers // evaluations)

    def _path(self) -> list[Tensor]:
        """φ along a run that follows the exact gradient, `(steps + 1, n, K)` per stack of sites."""
        f = self.function()
        step = Step(f, None, 1, LR, 0, self.context.device)
        path = [[leaf.detach().clone() for leaf in step.leaves]]
        for _ in range(self.steps):
            found = stacks(f.expectation(Stacked(path[-1], step.layout)).grads, step.layout)
            for leaf, grad in zip(step.leaves, found, strict=True):
                leaf.grad = grad
            step.optimizers[0].step()
            path.append([leaf.detach().clone() for leaf in step.leaves])
        return [torch.stack(leaves) for leaves in zip(*path, strict=True)]

    def points(self, seed: int) -> Iterator[Point]:
        device, f = self.context.device, self.function()
        leaves = self.kept("path", 0, (*self.shape, self.length), self._path)
        layout = layout_of(f.sizes)
        path = [Stacked(at, layout) for at in zip(*leaves, strict=True)]
        for name, progress in POINTS.items():
            last = round(progress * self.steps)

            def ride(estimator: Estimator, name: str = name, last: int = last) -> None:
                control = list(estimator.parameters())
                optimizer = torch.optim.Adam(control, lr=self.preset.control_lr) if control else None
                generator = torch.Generator(device).manual_seed(seed_of(self.name, "ride", seed, name))
                for i in range(last - self.preset.ride, last):
                    estimator.zero_grad()
                    logits = path[max(0, i)]
                    estimator.estimate(f, logits, estimator.draw(logits, generator))
                    if optimizer is not None:
                        optimizer.step()

            gradient = f.expectation(path[last]).grads
            yield Point(name, progress, path[last], [], lambda stream, i: f, ride, stochastic=False, gradient=gradient)

    def workload(self, make: Make | None, suite: str) -> Step:
        f = self.function()
        with self.context.device:
            estimator = None if make is None else make(f.sizes)
        return Step(f, estimator, self.rows, self.preset.control_lr, 0, self.context.device)

    def alone(self, suite: str) -> tuple[Callable[[Sites], Tensor], Sites]:
        f = self.function()
        rows = (self.rows,) if self.rows > 1 else ()
        return f, tuple(torch.zeros(*rows, size, device=self.context.device) for size in f.sizes)

    def train(
        self,
        make: Make | None,
        seed: int,
        keeper: Keeper,
    ) -> list[dict[str, Any]]:
        assert make is not None
        f = self.function()
        with self.context.device:
            estimator = make(f.sizes)
        step = Step(f, estimator, self.rows, self.preset.control_lr, seed, self.context.device)
        steps = self.steps
        every = max(1, steps // 40)
        curve = []
        for i in range(steps + 1):
            if i % every == 0 or i == steps:
                curve.append((i, float(f.expectation(step.logits).loss)))
                self.context.progress("training", i, steps)
            if i < steps:
                step.estimator.anneal(i / steps)  # type: ignore[union-attr]
                step.step()
        final = curve[-1][1]
        if final != final:
            raise Diverged("the logits are no longer finite")
        return [
            row("objective", final, unit="objective"),
            row("objective_gap", final - f.minimum(), unit="objective"),
            *(row("curve_objective", value, x=i, unit="objective") for i, value in curve),
        ]
