"""A suite: what is measured, of what, and how. They register like estimators and tasks do; one is one file.

A suite names the settings of its own and the roles of a task that it needs (see `suites.tasks.base`). What it is given
to measure is a `Job`: nothing else can be reached from there, and all of it is in the hash of the cell.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

from estimators.options import nearest
from suites.labels import BASELINES, PLAIN, Label
from suites.settings import Group, Settings
from suites.tasks.base import Nothing, Task
from suites.tasks.granted import Granted
from vmo.checkpoint import Keeper

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """One cell, as the suite that measures it sees it.

    Attributes:
        label: the estimator, or a baseline.
        seed: of the cell.
        settings: the suite's own, of the type that it names.
        task: with the roles that the suite names.
        on_cpu: the same task on the CPU.
        keeper: of the checkpoints of the cell's run.
        learned: of a control, the rows of the run whose learned network it controls; nothing where there are none.
    """

    label: Label
    seed: int
    settings: Any
    task: Granted
    on_cpu: Granted
    keeper: Keeper
    learned: Callable[[], Rows]

    def progress(self, what: str, done: int, total: int) -> None:
        """Say what is under way."""
        self.task.context.progress(what, done, total)


class Suite(ABC):
    """A suite.

    Attributes:
        name, version: part of a cell's identity; the version is raised when what is measured changes.
        title: a few words for tables and help.
        groups: the groups of settings that it declares.
        settings: what it is handed of them.
        roles: what it needs of a task; the first says at which size an estimator is made.
        uses: labels of the estimators that it uses beside the one that is measured.
        measures: the unit of each metric that its rows may have.
        baseline: whether plain training is a cell of it.
        controls: whether the other baselines are.
        alone: whether it times something, so that nothing else may run beside it.
        by_name: whether it runs only where it is asked for by name.
        shares: a word that suites have in common which read the same measurement; cells of these are run together.
        seeds: repetitions at each preset, where it repeats over seeds.
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

    def applies(self, task: Task, label: Label) -> bool:
        """Whether a task and an estimator are a cell of this suite."""
        if not set(self.roles) <= set(task.roles):
            return False
        if label.name == PLAIN:
            return self.baseline and (not self.controls or task.plain)
        return label.name not in BASELINES or (self.controls and task.plain)

    def impossible(self, label: Label, sizes: Sequence[int]) -> str | None:
        """Why an estimator cannot be measured on sites of these sizes, or None."""
        if label.name in BASELINES:
            return None
        try:
            label.make(sizes)
        except ValueError as error:
            return str(error)
        return None

    def dtype(self, settings: Mapping[str, Mapping[str, Any]]) -> str:
        """The arithmetic of what is measured, by a cell's settings."""
        return "float32"

    @abstractmethod
    def run(self, job: Job) -> Rows:
        """The rows of a cell."""


class OfSteps(Suite):
    """A suite that measures whole training steps, in the arithmetic in which they are trained."""

    def dtype(self, settings: Mapping[str, Mapping[str, Any]]) -> str:
        return "bfloat16" if settings.get("train", {}).get("bf16") else "float32"


_REGISTRY: dict[str, str | type[Suite]] = {
    "bias": "suites.bias:Bias",
    "variance": "suites.variance:Variance",
    "memory": "suites.memory:Memory",
    "overhead": "suites.overhead:Overhead",
    "accuracy": "suites.accuracy:Accuracy",
    "sampling": "suites.sampling:Sampling",
    "scaling": "suites.scaling:Scaling",
    "contest": "suites.contest:Contest",
}


def available() -> tuple[str, ...]:
    """The names of all suites, in their order of registration."""
    return tuple(_REGISTRY)


def register(name: str, suite: str | type[Suite]) -> None:
    """Add a suite: a `Suite` subclass, or "module:class". Raises ValueError where the name is taken."""
    if name in _REGISTRY:
        raise ValueError(f"there is a suite {name!r} already")
    _REGISTRY[name] = suite


def get(name: str) -> Suite:
    """A suite. Raises ValueError, with the nearest, where there is none."""
    if name not in _REGISTRY:
        raise ValueError(f"no suite {name!r}{nearest(name, _REGISTRY)}; there are {', '.join(_REGISTRY)}")
    found = _REGISTRY[name]
    if isinstance(found, str):
        module, _, attribute = found.partition(":")
        found = getattr(import_module(module), attribute)
    return found()
