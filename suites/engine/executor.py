"""Executors run groups of cells: in this process, in other processes of this machine, or on a cluster.

They only execute. `suites.engine.schedule` decides what may start, what happens after a crash and what is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import estimators
from suites.engine.cell import Workshop
from suites.engine.execute import execute
from suites.engine.plan import Planned
from suites.labels import Label


@dataclass(frozen=True, eq=False)
class Group:
    """Cells that one process runs, one after the other.

    Args:
        items: the cells; they share work.
        alone: they measure time, so nothing else may run on the same machine.
        registered: "module:class" of each of their estimators, for a process that may not have registered it.
        tries: how often the group has been started before.
    """

    items: tuple[Planned, ...]
    alone: bool = False
    registered: Mapping[str, str] = field(default_factory=dict)
    tries: int = 0


class Ended(NamedTuple):
    """A group that has ended, and how its worker died if it did: "with exit code 7"."""

    group: Group
    died: str | None = None


class Executor(Protocol):
    """Runs groups. One sweep uses it at a time.

    Attributes:
        room: how many groups may run at a time.
        apart: whether they run in other processes, which import the code again.
        separates: whether the executor itself keeps `alone` groups alone on their machine; otherwise the sweep does.
    """

    room: int
    apart: bool
    separates: bool

    def begin(self, shop: Workshop, rows: Path) -> None:
        """Prepare for a sweep. Raises ValueError if cells cannot be run."""

    def submit(self, group: Group) -> None:
        """Start a group now or as soon as there is room. An `alone` group gets the whole machine."""

    def wait(self, seconds: float | None) -> Sequence[Ended]:
        """Wait for groups to end. Returns at least one, or none after this many seconds.

        Raises:
            OSError: a group could not write.
        """

    def end(self) -> None:
        """Cancel running groups. A later sweep resumes them from their checkpoints."""


def work(group: Group, shop: Workshop, rows: Path) -> None:
    """Run a group in a worker. Raises OSError if a file cannot be written."""
    for name, place in group.registered.items():
        if name not in estimators.available():
            estimators.register(name, place)
    for _ in execute(group.items, shop, rows):
        pass


def registered(items: Sequence[Planned]) -> dict[str, str]:
    """The estimators of cells as "module:class" by name, for another process.

    Raises:
        ValueError: an estimator is defined in the script that was started or inside a function: it cannot be imported.
    """
    found = {}
    for name in sorted({name for item in items for name in _names(item.cell.label)}):
        factory = estimators.factory(name)
        module, inside = getattr(factory, "__module__", "__main__"), getattr(factory, "__qualname__", "<locals>")
        if module == "__main__" or "<locals>" in inside:
            where = "in the script that was started" if module == "__main__" else "inside a function"
            raise ValueError(
                f"estimator {name!r} is defined {where}, where no other process can import it: move it to a module, or "
                "run without --workers and --launcher ray"
            )
        found[name] = f"{module}:{inside}"
    return found


def _names(label: Label) -> Iterator[str]:
    """Every registered name in a label, including wrapped estimators."""
    words = [label.name, *(str(value).partition("[")[0] for _, value in label.options)]
    yield from (word for word in words if word in estimators.available())
    if label.of is not None:
        yield from _names(label.of)
