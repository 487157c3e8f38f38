"""What carries out groups of cells, somewhere: in this process, in others of this machine, on a cluster.

An executor knows no rules. `suites.engine.schedule` decides what may start, what a death means and what is recorded.
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
        alone: they are timed, and nothing else may run on the same machine.
        registered: "module:class" of each estimator of theirs, for a process that may not know its name.
        tries: how often it has been started before.
    """

    items: tuple[Planned, ...]
    alone: bool = False
    registered: Mapping[str, str] = field(default_factory=dict)
    tries: int = 0


class Ended(NamedTuple):
    """A group that is over, and how its worker died if it did: "with exit code 7"."""

    group: Group
    died: str | None = None


class Executor(Protocol):
    """Runs groups; used by one sweep at a time.

    room: groups that it takes at a time.
    apart: whether they run in other processes, which import the code anew.
    separates: whether it sees to it that what is `alone` is alone on its machine; else the sweep does.
    """

    room: int
    apart: bool
    separates: bool

    def begin(self, shop: Workshop, rows: Path) -> None:
        """A sweep starts. Raises ValueError where it cannot run a cell."""

    def submit(self, group: Group) -> None:
        """Start a group, or start it as soon as there is room. What is `alone` gets the whole machine."""

    def wait(self, seconds: float | None) -> Sequence[Ended]:
        """Groups that are over: one at least, or none after so many seconds.

        Raises:
            OSError: a group could not write.
        """

    def end(self) -> None:
        """Cancel what is under way; it goes on from its checkpoints another time."""


def work(group: Group, shop: Workshop, rows: Path) -> None:
    """What a worker does. Raises OSError where something cannot be written."""
    for name, place in group.registered.items():
        if name not in estimators.available():
            estimators.register(name, place)
    for _ in execute(group.items, shop, rows):
        pass


def registered(items: Sequence[Planned]) -> dict[str, str]:
    """Where another process finds the estimators of cells, as "module:class" by their names.

    Raises:
        ValueError: it cannot find one, for it is defined in the script that was started, or inside a function.
    """
    found = {}
    for name in sorted({name for item in items for name in _names(item.cell.label)}):
        factory = estimators.factory(name)
        module, inside = getattr(factory, "__module__", "__main__"), getattr(factory, "__qualname__", "<locals>")
        if module == "__main__" or "<locals>" in inside:
            where = "in the script that was started" if module == "__main__" else "inside a function"
            raise ValueError(
                f"estimator {name!r} is defined {where}, where no other process can import it: move it to a module, or "
                "do without --workers and --launcher ray"
            )
        found[name] = f"{module}:{inside}"
    return found


def _names(label: Label) -> Iterator[str]:
    """Every registered name in a label, those of wrapped estimators too."""
    words = [label.name, *(str(value).partition("[")[0] for _, value in label.options)]
    yield from (word for word in words if word in estimators.available())
    if label.of is not None:
        yield from _names(label.of)
