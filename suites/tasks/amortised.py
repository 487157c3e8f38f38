"""Tasks with an encoder: a network makes the logits of every example, and its weights are trained.

Such a task is a `Model` (see `suites.tasks.amortised_model`), its examples, and the rows of a finished run; see
`bottleneck`. All share the training step, the points of a reference run at which estimators are measured, the whole
run, and the settings of the group `amortised`.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

import estimators
from estimators import Estimator
from results.table import row
from suites.settings import Group, Settings, narrow
from suites.tasks import curve
from suites.tasks.amortised_model import Batch, Model, Run, drawn, mode
from suites.tasks.base import Make, Point, Sites, Size, Task, Truth, TruthSettings, dataset_of, seed_of
from vmo.checkpoint import Keeper
from vmo.data import Dataset
from vmo.learner import ride

POINTS = {"uniform": 0.0, "mid": 0.5, "peaked": 1.0}
MEASURED = 4  # examples whose logits' gradients are measured
SHOWN = 1000  # examples for each point of the training curve
SAMPLES = 10  # samples of z per example for the final value
REFERENCE = "rloo[samples=4]"
"""The estimator that trains the reference run."""
TIMED_LR = 1e-3  # learning rate of a step that is timed or counted; its cost does not depend on it


class Step(Settings):
    """A training step."""

    hidden: int = Field(200, ge=1)
    """Width of the hidden layers."""
    batch_size: int = Field(64, ge=1)
    """Examples per step."""


class Training(Settings):
    """How long and how fast everything is trained."""

    steps: int = Field(600, ge=1)
    """Training steps."""
    lr: float = Field(1e-3, ge=0)
    """Learning rate of Adam for the model."""
    control_lr: float = Field(0.01, ge=0)
    """Learning rate of Adam for control variates."""


class Ride(Settings):
    """How an adaptive estimator adapts before a point."""

    ride: int = Field(50, ge=0)
    """Steps on which an adaptive estimator (with a baseline or control variate) adapts before each point."""


class Estimates(Settings):
    """How often an estimator is measured."""

    estimates: int = Field(2000, ge=20)
    """Estimates per point for one evaluation per estimate; with more evaluations fewer in proportion, at least 20."""


class RunView(Step, Training):
    """The view of `amortised` for a run."""


class PointsView(Step, Training, Ride):
    """The view of `amortised` for the points of a run."""


class AmortisedGroup(Step, Training, Ride, Estimates, Group, name="amortised"):
    """Tasks in which a network makes the logits of every example: bottleneck, experts, halves, spelling, hierarchy."""

    presets: ClassVar = {
        "smoke": {"steps": 40, "estimates": 100, "ride": 4},
        "cpu": {"steps": 20_000, "estimates": 20_000, "batch_size": 128},
        "paper": {"steps": 100_000, "estimates": 20_000, "batch_size": 128},
    }


class StepSettings(Settings):
    """Handed for "step", "timed" and "counted"."""

    amortised: Step


class RunSettings(Settings):
    """Handed for "run"."""

    amortised: RunView


class PointsSettings(Settings):
    """Handed for "points"."""

    amortised: PointsView


class EstimatesSettings(Settings):
    """Handed for "estimates"."""

    amortised: Estimates


class AmortisedTask(Task):
    """A task whose subclass implements `shape`, `examples`, `model` and `rows`.

    Bias and variance are measured for the logits' gradients of four test examples, at three points of one training run
    by leave-one-out REINFORCE with four samples. Adaptive estimators adapt there on minibatches of four training
    examples.
    """

    plain = False
    groups: ClassVar[tuple[type[Group], ...]] = (AmortisedGroup, Truth)
    group: ClassVar[str] = "amortised"
    """The group of settings from which the steps are read."""
    training: ClassVar[type[Settings]] = RunView
    """The view of that group which determines a run."""
    curve: ClassVar[tuple[str, str]] = ("curve_objective", "objective")
    """Metric and unit of the curve of a run."""
    uses_data = frozenset({"points", "step", "run"})
    roles: ClassVar = {
        "points": PointsSettings,
        "truth": TruthSettings,
        "estimates": EstimatesSettings,
        "step": StepSettings,
        "timed": StepSettings,
        "counted": StepSettings,
        "run": RunSettings,
    }

    @abstractmethod
    def shape(self, how: Any) -> tuple[int, int]:
        """(L, K) at these settings of the group."""

    @abstractmethod
    def examples(self) -> tuple[Batch, Batch]:
        """All training and test examples, on the device. The first tensor of each is the encoder's input."""

    @abstractmethod
    def blank(self, count: int) -> Batch:
        """Examples whose content does not matter, for steps that are timed or counted."""

    @abstractmethod
    def model(self, how: Any, examples: Batch) -> Model:
        """A new model for these settings of the group, on the default device and from the default generator."""

    def value(self, model: Model, examples: Batch) -> float:
        """The value of the curve, on test examples."""
        return float(torch.cat([f.mean(0) for _, _, f in drawn(model, examples, 1)]).mean())

    def rows(self, model: Model, part: str, examples: Batch) -> Iterator[dict[str, Any]]:
        """The rows of a trained model for "train" or "test"."""
        found = torch.cat([f.mean(0) for _, _, f in drawn(model, examples, SAMPLES)])
        yield row("objective", float(found.mean()), part=part, n=len(found), unit="objective")

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The data, on the device."""
        return dataset_of(self.context)

    @functools.cached_property
    def images(self) -> tuple[Tensor, Tensor]:
        """Intensities in [0, 1] of training and test images, `(N, H, W)`, the mean over their channels."""
        most = 255.0 if self.dataset.name != "digits" else 240.0
        train, test = (split.images.float().mean(1) / most for split in (self.dataset.train, self.dataset.test))
        return train, test

    @functools.cached_property
    def _examples(self) -> tuple[Batch, Batch]:
        return self.examples()

    def how(self, settings: Any) -> Any:
        """The settings of the group, from those of a role."""
        return getattr(settings, self.group)

    def prepare(self, role: str, settings: Any) -> None:
        if role in self.uses_data and (size := self.how(settings).batch_size) > (count := len(self._examples[0][0])):
            raise ValueError(f"{self.group}.batch_size={size} exceeds the {count} training images")

    def uses(self, role: str, settings: Any) -> tuple[str, ...]:
        return (REFERENCE,) if role == "points" else ()

    def sizes(self, role: str, settings: Any) -> tuple[int, ...]:
        variables, categories = self.shape(self.how(settings))
        return (categories,) * variables

    def estimates(self, settings: Any, evaluations: int) -> int:
        return max(20, self.how(settings).estimates // evaluations)

    def _new(self, how: Any, examples: Batch, seed: int) -> Model:
        """A new model. Equal seeds give equal weights for all estimators."""
        with torch.random.fork_rng(devices=[]), self.context.device:
            torch.manual_seed(seed)
            return self.model(how, examples)

    def _run(
        self, how: Any, make: Make | None, examples: Batch, seed: int, lr: float, control_lr: float, steps: int | None
    ) -> Run:
        """A new training run, see `Run`."""
        variables, categories = self.shape(how)
        with self.context.device:
            estimator = None if make is None else make((categories,) * variables)
        model = self._new(how, examples, seed)
        size, rates = how.batch_size, {"lr": lr, "control_lr": control_lr}
        return Run(model, estimator, examples, name=self.name, **rates, batch_size=size, seed=seed, steps=steps)

    @functools.lru_cache(maxsize=1)  # noqa: B019  one task lives as long as the sweep
    def _reference_run(self, how: Any, seed: int) -> tuple[Run, dict[str, dict[str, Any]]]:
        def rloo(sizes: Any) -> Estimator:
            return estimators.get("rloo", sizes=sizes, samples=4)

        run = self._run(how, rloo, self._examples[0], seed, how.lr, how.control_lr, None)

        def make() -> dict[str, dict[str, Any]]:
            ends = {name: round(part * how.steps) for name, part in POINTS.items()}
            at: dict[str, dict[str, Any]] = {}
            for step in range(how.steps + 1):
                at |= {name: run.snapshot() for name, end in ends.items() if step == end}
                if step < how.steps:
                    run.step()
                    self.context.progress("reference run", step + 1, how.steps)
            return at

        return run, self.kept("reference-run", seed, how, make)

    def points(self, settings: Any, seed: int) -> Iterator[Point]:
        how = self.how(settings)
        run, at = self._reference_run(narrow(how, self.training), seed)
        device = self.context.device
        generator = torch.Generator(device).manual_seed(seed_of(self.name, "measured", seed))
        batch = run.model.observed(tuple(part[:MEASURED] for part in self._examples[1]), generator)
        f = run.model.objective(batch)
        for name, progress in POINTS.items():
            run.restore(at[name])
            with torch.no_grad():
                logits = run.model.logits(batch[0]).unbind(-2)

            def along(estimator: Estimator, name: str = name) -> None:
                noise = torch.Generator(device).manual_seed(seed_of(self.name, "ride", seed, name))

                def moments() -> Iterator[tuple[Callable[[Sites], Tensor], Sites]]:
                    for _ in range(how.ride):
                        pick = torch.randint(len(run.examples[0]), (MEASURED,), generator=noise, device=device)
                        other = run.model.observed(tuple(part[pick] for part in run.examples), noise)
                        yield run.model.objective(other), run.model.logits(other[0]).detach().unbind(-2)

                ride(estimator, moments(), control_lr=how.control_lr, noise=noise)

            weights = run.model.weights()
            yield Point(name, progress, logits, weights, lambda stream, i: f, along, stochastic=False)

    def workload(self, role: str, settings: Any, make: Make | None, size: Size | None = None) -> _Repeated:
        how = self.how(settings)
        examples = self._examples[0] if role == "step" else self.blank(how.batch_size)
        return _Repeated(self._run(how, make, examples, 0, TIMED_LR, TIMED_LR, None))

    def alone(self, settings: Any) -> tuple[Callable[[Sites], Tensor], Sites]:
        how = self.how(settings)
        batch = self.blank(how.batch_size)
        model = self._new(how, batch, 0)
        return model.objective(batch), model.logits(batch[0]).detach().unbind(-2)

    def run(self, settings: Any, make: Make | None, seed: int, keeper: Keeper) -> list[dict[str, Any]]:
        assert make is not None
        how, context = self.how(settings), self.context
        train, test = self._examples
        run = self._run(how, make, train, seed, how.lr, how.control_lr, how.steps)
        shown = tuple(part[:SHOWN] for part in test)

        def watch() -> float:
            return self.value(run.model, shown)

        found = curve.train(run, watch, keeper, moments=20, device=context.device, progress=context.progress)
        metric, unit = self.curve
        some = tuple(part[: len(test[0])] for part in train)
        return [
            *self.rows(run.model, "train", some),
            *self.rows(run.model, "test", test),
            *(row(metric, value, x=at, unit=unit) for at, value in found),
        ]


class _Repeated:
    """A step of a run, on one minibatch."""

    def __init__(self, run: Run) -> None:
        self.run, self.batch = run, run.minibatch()

    def step(self) -> None:
        self.run.train_on(self.batch)

    def tensors(self) -> dict[str, list[Tensor]]:
        return self.run.tensors()


@torch.no_grad()
def at_mode(model: Model, examples: Batch, of: Callable[[Batch], Callable[[Sites], Tensor]]) -> Tensor:
    """`of(batch)` at the most probable z of every example, `(N,)`."""
    found = [of(batch)(mode(logits)) for batch, logits, _ in drawn(model, examples, 1)]
    return torch.cat(found)
