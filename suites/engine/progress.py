"""Shows the progress of a sweep: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from suites.engine.execute import Finished, title
from suites.engine.plan import Planned

AT_LEAST, AT_MOST = 5.0, 60.0
"""Least and most seconds between two progress lines of a cell."""

Level = Literal["quiet", "normal", "verbose"]


def silent(what: str, done: int, total: int) -> None:
    """Ignore progress. A function, because a lambda cannot be sent to another process."""


class Progress:
    """One bar for all cells and one for each running cell; lines if the output is not a terminal.

    Args:
        level: "quiet" only reports cells with an error. "verbose" prints a line for everything that starts and for
            every tenth of it, on a terminal too.
        console: the output; default: standard error.
    """

    def __init__(self, level: Level = "normal", console: Console | None = None) -> None:
        self._level = level
        self._console = console or Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal or level == "quiet",
            transient=True,
        )
        self._lines = level == "verbose" or (level == "normal" and not self._console.is_terminal)
        self._cells = self._bars.add_task("cells", total=None, visible=False)
        self._under_way: dict[str, _Cell] = {}
        self._present = ""
        self._total = self._done = 0

    def __enter__(self) -> Progress:
        self._bars.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.__exit__(kind, error, trace)

    def begin(self, planned: Sequence[Planned]) -> None:
        """The sweep starts."""
        self._total = sum(item.to_do for item in planned)
        finished = len(planned) - self._total
        failed = sum(item.kept == "error" for item in planned)
        if finished and self._level != "quiet":
            self._console.print(f"{finished} of {len(planned)} cells are done already")
        if failed:
            self._console.print(f"{failed} finished cells failed with an error; --overwrite failed runs them again")
        self._bars.update(self._cells, total=self._total, visible=self._total > 0)

    def detail(self, what: str, done: int, total: int) -> None:
        """Report progress inside a cell. With a total of 0, `what` is the title of the cell that starts or goes on."""
        if not total:
            self._present = what
        if self._present not in self._under_way:
            bar = self._bars.add_task(self._present, total=None)
            self._under_way[self._present] = _Cell(bar, time.monotonic())
        cell = self._under_way[self._present]
        if not total:
            return
        self._bars.update(cell.bar, description=f"{self._present}: {what}", completed=done, total=total)
        if self._lines and cell.moves(what, done, total, time.monotonic(), 0 if self._level == "verbose" else AT_LEAST):
            self._print(f"{self._present}: {cell.line(time.monotonic())}")

    def finished(self, done: Finished) -> None:
        """Report a finished cell."""
        self._done += 1
        name = title(done.item.cell)
        line = f"[{self._done}/{self._total}] {name}: {done.status}"
        line += f" ({done.seconds:.1f} s)" + (f": {done.message}" if done.message else "")
        if self._level != "quiet" or done.status == "error":
            self._print(line)
        self._bars.update(self._cells, completed=self._done)
        if name in self._under_way:
            self._bars.remove_task(self._under_way.pop(name).bar)

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


@dataclass
class _Cell:
    """The progress of a cell, and what was last printed about it."""

    bar: TaskID
    told_at: float
    what: str = ""
    done: int = 0
    total: int = 0
    begun: tuple[int, float] = (0, 0.0)  # count and time of the first report of the current activity
    told: tuple[str, int] = ("", 0)  # activity and tenths of it in the last line

    def moves(self, what: str, done: int, total: int, now: float, at_least: float) -> bool:
        """Update the progress. Returns whether to print a line, at most one every `at_least` seconds."""
        if total != self.total or done < self.done:
            self.begun = done, now
        self.what, self.done, self.total = what, done, total
        tenths, since = 10 * done // total, now - self.told_at
        if since < at_least or ((what, tenths) == self.told and since < AT_MOST):
            return False
        self.told, self.told_at = (what, tenths), now
        return True

    def line(self, now: float) -> str:
        """The current activity, how much of it is done, and the time left at the present speed."""
        first, since = self.begun
        line = f"{self.what}, {100 * self.done // self.total} %" if self.done else self.what
        if self.done > first:
            line += f", {_spoken((now - since) * (self.total - self.done) / (self.done - first))} left"
        return line


def _spoken(seconds: float) -> str:
    """A time, rounded: "40 s", "2 min", "3 h 20 min"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
