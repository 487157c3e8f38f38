"""The base class and the registry of suites. A suite is one file that defines a kind of measurement.

A suite declares its own settings and the roles that it needs of a task (see `suites.tasks.base`). It measures a `Job`,
which is all that it can reach. Everything that a job contains is in the hash of the cell.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

from estimators.options import nearest
from suites.labels import PLAIN, Label
from suites.settings import Group, Settings
from suites.tasks.base import Nothing, Task
from suites.tasks.granted import Granted
from vmo.checkpoint import Keeper

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """One cell, as its suite sees it.

    Attributes:
        label: the estimator, a baseline or a rival.
        seed: the seed.
        settings: the suite's settings, of its type `settings`.
        task: the task, with the suite's roles.
        on_cpu: the same task on the CPU.
        keeper: keeps the checkpoints of the cell's run.
        learned: for a control, or in a suite that follows another, the rows of the run that learned the network; empty
            if there are none.
    """

    label: Label
    seed: int
    settings: Any
    task: Granted
    on_cpu: Granted
    keeper: Keeper
    learned: Callable[[], Rows]

    def progress(self, what: str, done: int, total: int) -> None:
        """Report progress: what is running, how much is done, and the total."""
        self.task.context.progress(what, done, total)


class Suite(ABC):
    """A suite.

    Attributes:
        name: part of a cell's identity.
        version: part of a cell's identity; raise it when the measurement changes.
        title: a few words for tables and help.
        groups: the groups of settings that it declares.
        settings: the type of the settings that it is handed.
        roles: the roles that it needs of a task. The first determines the sizes for which the estimator is made.
        uses: labels of estimators that it uses besides the measured one.
        measures: the unit of each metric in its rows.
        baseline: whether it measures plain training too.
        controls: whether it measures the other baselines and the rivals too.
        alone: whether it measures time, so that nothing else may run meanwhile.
        by_name: whether it runs only if named.
        shares: suites with the same word use the same measurement, and their cells run together.
        seeds: number of seeds at each preset, if it repeats over seeds.
        follows: the suite whose runs learn the networks that this one measures. Its cells have the same roles.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    title: ClassVar[str]
    groups: ClassVar[tuple[type[Group], ...]] = ()
    settings: ClassVar[type[Settings]] = Nothing
    roles: ClassVar[tuple[str, ...]] = ()
    uses: ClassVar[tuple[str, ...]] = ()
    measures: ClassVar[Mapping[str, str]] = {}
    baseline: ClassVar[bool] = False
    controls: ClassVar[bool] = False
    alone: ClassVar[bool] = False
    by_name: ClassVar[bool] = False
    shares: ClassVar[str | None] = None
    seeds: ClassVar[Mapping[str, int]] = {}
    follows: ClassVar[str | None] = None

    def applies(self, task: Task, label: Label) -> bool:
        """Whether this suite measures this estimator, baseline or rival on this task."""
        if not set(self.roles) <= set(task.roles):
            return False
        if label.name == PLAIN:
            return self.baseline and (not self.controls or task.plain)
        if label.rival is not None or (label.of is not None and label.of.rival is not None):
            return self.controls and task.narrows
        return label.is_estimator or (self.controls and task.plain)

    def impossible(self, label: Label, sizes: Sequence[int]) -> str | None:
        """Why an estimator cannot be measured on sites of these sizes, or None."""
        if not label.is_estimator:
            return None
        try:
            label.make(sizes)
        except ValueError as error:
            return str(error)
        return None

    def dtype(self, settings: Mapping[str, Mapping[str, Any]]) -> str:
        """The dtype of the measured computation, from a cell's settings."""
        return "float32"

    @abstractmethod
    def run(self, job: Job) -> Rows:
        """Measure a cell. Returns its rows."""


class OfSteps(Suite):
    """A suite that measures whole training steps, in the dtype that training uses."""

    def dtype(self, settings: Mapping[str, Mapping[str, Any]]) -> str:
        return "bfloat16" if settings.get("train", {}).get("bf16") else "float32"


_REGISTRY: dict[str, str | type[Suite]] = {
    "bias": "suites.bias:Bias",
    "variance": "suites.variance:Variance",
    "memory": "suites.memory:Memory",
    "overhead": "suites.overhead:Overhead",
    "accuracy": "suites.accuracy:Accuracy",
    "latency": "suites.latency:Latency",
    "sampling": "suites.sampling:Sampling",
    "scaling": "suites.scaling:Scaling",
    "contest": "suites.contest:Contest",
}


def available() -> tuple[str, ...]:
    """The names of all suites, in their order of registration."""
    return tuple(_REGISTRY)


def register(name: str, suite: str | type[Suite]) -> None:
    """Add a suite: a `Suite` subclass, or "module:class". Raises ValueError if the name is taken."""
    if name in _REGISTRY:
        raise ValueError(f"there is a suite {name!r} already")
    _REGISTRY[name] = suite


def get(name: str) -> Suite:
    """A suite by name. Raises ValueError for an unknown name; the message suggests the nearest."""
    if name not in _REGISTRY:
        raise ValueError(f"no suite {name!r}{nearest(name, _REGISTRY)}; there are {', '.join(_REGISTRY)}")
    found = _REGISTRY[name]
    if isinstance(found, str):
        module, _, attribute = found.partition(":")
        found = getattr(import_module(module), attribute)
    return found()
