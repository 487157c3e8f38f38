"""A task as a cell sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from suites.settings import Settings
from suites.tasks.base import Context, Make, Point, Sites, Size, Task, Truth, Workload
from vmo.checkpoint import Keeper
from vmo.space import Architecture


@dataclass(frozen=True)
class Granted:
    """A task as a cell sees it: only the roles that its suite declares, each with the settings in the cell's hash.

    Every method is that of `Task` with the settings of its role filled in. Any other role raises a KeyError.
    """

    task: Task
    handed: Mapping[str, Settings]

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task.name

    @property
    def context(self) -> Context:
        """The task's context."""
        return self.task.context

    @property
    def truth(self) -> Truth | None:
        """How the reference gradient is estimated; None if it is always known exactly."""
        return cast("Truth | None", getattr(self.handed["truth"], "truth", None))

    def sizes(self, role: str) -> tuple[int, ...]:
        """See `Task.sizes`."""
        return self.task.sizes(role, self.handed[role])

    def estimates(self, evaluations: int) -> int:
        """See `Task.estimates`."""
        return self.task.estimates(self.handed["estimates"], evaluations)

    def points(self, seed: int) -> Iterator[Point]:
        """See `Task.points`."""
        return self.task.points(self.handed["points"], seed)

    def workload(self, role: str, make: Make | None, size: Size | None = None) -> Workload:
        """See `Task.workload`."""
        return self.task.workload(role, self.handed[role], make, size)

    def held(self, make: Make, part: float) -> Workload | None:
        """See `Task.held`."""
        return self.task.held(self.handed["timed"], make, part)

    def alone(self) -> tuple[Callable[[Sites], Tensor], Sites] | None:
        """See `Task.alone`."""
        return self.task.alone(self.handed["timed"])

    def at(self, make: Make | None, logits: Sites) -> Workload:
        """See `Task.at`."""
        return self.task.at(self.handed["step"], make, logits)

    def base(self) -> Size:
        """See `Task.base`."""
        return self.task.base(self.handed["scaled"])

    def run(self, make: Make | None, seed: int, keeper: Keeper, **how: Any) -> list[dict[str, Any]]:
        """See `Task.run`. Network tasks accept further arguments."""
        return self.task.run(self.handed["run"], make, seed, keeper, **how)

    def networks(self, architecture: Architecture) -> tuple[tuple[nn.Module, nn.Module], tuple[int, ...]]:
        """See `Task.networks`."""
        return self.task.networks(self.handed["run"], architecture)

    def cut_alike(self, architecture: Architecture) -> Architecture:
        """See `Task.cut_alike`."""
        return self.task.cut_alike(self.handed["run"], architecture)
