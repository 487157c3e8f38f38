"""Tasks whose objective is a plain function of the sample: no weights, no data, logits φ trained by Adam.

Such a task is a `Function` and a few lines, see `toy`. All share the training step, the points of a run with exact
gradients at which estimators are measured, and the whole run.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from estimators import Estimator
from estimators.sitewise import Stacked, layout_of
from results.table import row
from suites.settings import Group, Settings
from suites.tasks import curve
from suites.tasks.base import Make, Nothing, Point, Sites, Size, Task, seed_of
from suites.tasks.functions import LR, Function, Run
from vmo.checkpoint import Keeper
from vmo.learner import ride

POINTS = {"uniform": 0.0, "mid": 0.2, "peaked": 1.0}
NUMBERS = 9  # logits of the toy, to which the number of estimates refers


class Length(Settings):
    """How long φ is trained."""

    steps: int = Field(2000, ge=1)
    """Training steps."""


class Control(Settings):
    """How an estimator's own parameters are trained."""

    control_lr: float = Field(0.01, ge=0)
    """Learning rate of Adam for control variates."""


class Ride(Control):
    """How an adaptive estimator adapts before a point."""

    ride: int = Field(50, ge=0)
    """Steps on which an adaptive estimator (with a baseline or control variate) adapts before each point."""


class Estimates(Settings):
    """How often an estimator is measured."""

    estimates: int = Field(100_000, ge=20)
    """Estimates per point for 9 logits (the toy) and one evaluation per estimate; fewer in proportion if there are more
    of either, at least 20."""


class FunctionGroup(Length, Ride, Estimates, Group, name="function"):
    """Tasks whose objective is a plain function: toy, quadratic, multilinear, polynomial."""

    presets: ClassVar = {
        "smoke": {"steps": 100, "estimates": 2000, "ride": 4},
        "cpu": {"steps": 10_000, "estimates": 1_000_000},
        "paper": {"steps": 10_000, "estimates": 1_000_000},
    }


class RunView(Length, Control):
    """The view of `function` for a run."""


class PointsView(Length, Ride):
    """The view of `function` for the points of a run."""


class RunSettings(Settings):
    """Handed for "run"."""

    function: RunView


class PointsSettings(Settings):
    """Handed for "points"."""

    function: PointsView


class EstimatesSettings(Settings):
    """Handed for "estimates"."""

    function: Estimates


class FunctionTask(Task):
    """A task whose subclass implements `function`, and `steps` if that number is in another group."""

    plain = False
    rows = 1
    """Independent estimates per step; the step uses their mean."""
    groups: ClassVar[tuple[type[Group], ...]] = (FunctionGroup,)
    roles: ClassVar = {
        "points": PointsSettings,
        "truth": Nothing,
        "estimates": EstimatesSettings,
        "step": Nothing,
        "timed": Nothing,
        "counted": Nothing,
        "run": RunSettings,
    }

    @abstractmethod
    def function(self, settings: Any) -> Function:
        """f on the context's device, from the settings of any role."""

    def steps(self, settings: Any) -> int:
        """The number of training steps."""
        return int(settings.function.steps)

    def about(self, settings: Any) -> Settings:
        """The settings of "points" that determine the path of φ."""
        return Length(steps=self.steps(settings))

    def sizes(self, role: str, settings: Any) -> tuple[int, ...]:
        return self.function(settings).sizes

    def estimates(self, settings: Any, evaluations: int) -> int:
        numbers = sum(self.function(settings).sizes)
        return max(20, settings.function.estimates * NUMBERS // numbers // evaluations)

    def _path(self, settings: Any) -> list[Tensor]:
        """φ in a run with the exact gradient, `(steps + 1, n, K)` per stack of sites."""
        run = Run(self.function(settings), None, device=self.context.device)
        path = [[leaf.detach().clone() for leaf in run.leaves]]
        for _ in range(self.steps(settings)):
            run.step_exactly()
            path.append([leaf.detach().clone() for leaf in run.leaves])
        return [torch.stack(leaves) for leaves in zip(*path, strict=True)]

    def points(self, settings: Any, seed: int) -> Iterator[Point]:
        device, f, how = self.context.device, self.function(settings), settings.function
        leaves = self.kept("path", 0, self.about(settings), lambda: self._path(settings))
        layout = layout_of(f.sizes)
        path = [Stacked(at, layout) for at in zip(*leaves, strict=True)]
        for name, progress in POINTS.items():
            last = round(progress * self.steps(settings))

            def along(estimator: Estimator, name: str = name, last: int = last) -> None:
                noise = torch.Generator(device).manual_seed(seed_of(self.name, "ride", seed, name))
                moments = ((f, path[max(0, i)]) for i in range(last - how.ride, last))
                ride(estimator, moments, control_lr=how.control_lr, noise=noise)

            gradient = f.expectation(path[last]).grads
            yield Point(name, progress, path[last], [], lambda stream, i: f, along, stochastic=False, gradient=gradient)

    def _run(
        self, settings: Any, make: Make | None, seed: int, control_lr: float = LR, steps: int | None = None
    ) -> Run:
        """A new training run, see `Run`."""
        f, device = self.function(settings), self.context.device
        with device:
            estimator = None if make is None else make(f.sizes)
        return Run(f, estimator, rows=self.rows, control_lr=control_lr, seed=seed, device=device, steps=steps)

    def workload(self, role: str, settings: Any, make: Make | None, size: Size | None = None) -> Run:
        return self._run(settings, make, 0)

    def alone(self, settings: Any) -> tuple[Callable[[Sites], Tensor], Sites]:
        f = self.function(settings)
        rows = (self.rows,) if self.rows > 1 else ()
        return f, tuple(torch.zeros(*rows, size, device=self.context.device) for size in f.sizes)

    def run(self, settings: Any, make: Make | None, seed: int, keeper: Keeper) -> list[dict[str, Any]]:
        assert make is not None
        run = self._run(settings, make, seed, settings.function.control_lr, self.steps(settings))
        context = self.context
        found = curve.train(run, run.value, keeper, moments=40, device=context.device, progress=context.progress)
        final = found[-1][1]
        return [
            row("objective", final, unit="objective"),
            row("objective_gap", final - run.f.minimum(), unit="objective"),
            *(row("curve_objective", value, x=at, unit="objective") for at, value in found),
        ]
