"""Tasks whose objective is a function of the sample and nothing else: no weights, no data, logits trained by Adam.

One is a `Function` and a few lines, see `toy`. What they share is the step, the points of a run with exact gradients at
which estimators are measured, and a whole run.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from estimators import Estimator
from estimators.sitewise import Stacked, layout_of
from results.table import row
from suites.tasks import curve
from suites.tasks.base import Make, Point, Sites, Task, seed_of
from suites.tasks.functions import Function, Run
from vmo.checkpoint import Keeper
from vmo.learner import ride

POINTS = {"uniform": 0.0, "mid": 0.2, "peaked": 1.0}
NUMBERS = 9  # logits of the toy, for which the preset's number of estimates is meant


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
        run = Run(self.function(), None, device=self.context.device)
        path = [[leaf.detach().clone() for leaf in run.leaves]]
        for _ in range(self.steps):
            run.step_exactly()
            path.append([leaf.detach().clone() for leaf in run.leaves])
        return [torch.stack(leaves) for leaves in zip(*path, strict=True)]

    def points(self, seed: int) -> Iterator[Point]:
        device, f = self.context.device, self.function()
        leaves = self.kept("path", 0, (*self.shape, self.length), self._path)
        layout = layout_of(f.sizes)
        path = [Stacked(at, layout) for at in zip(*leaves, strict=True)]
        for name, progress in POINTS.items():
            last = round(progress * self.steps)

            def along(estimator: Estimator, name: str = name, last: int = last) -> None:
                noise = torch.Generator(device).manual_seed(seed_of(self.name, "ride", seed, name))
                moments = ((f, path[max(0, i)]) for i in range(last - self.preset.ride, last))
                ride(estimator, moments, control_lr=self.preset.control_lr, noise=noise)

            gradient = f.expectation(path[last]).grads
            yield Point(name, progress, path[last], [], lambda stream, i: f, along, stochastic=False, gradient=gradient)

    def run(self, make: Make | None, seed: int, steps: int | None = None) -> Run:
        """A fresh training run; see `Run`."""
        f, device = self.function(), self.context.device
        with device:
            estimator = None if make is None else make(f.sizes)
        control_lr = self.preset.control_lr
        return Run(f, estimator, rows=self.rows, control_lr=control_lr, seed=seed, device=device, steps=steps)

    def workload(self, make: Make | None, suite: str) -> Run:
        return self.run(make, 0)

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
        run = self.run(make, seed, self.steps)
        context = self.context
        found = curve.train(run, run.value, keeper, moments=40, device=context.device, progress=context.progress)
        final = found[-1][1]
        return [
            row("objective", final, unit="objective"),
            row("objective_gap", final - run.f.minimum(), unit="objective"),
            *(row("curve_objective", value, x=at, unit="objective") for at, value in found),
        ]
