"""Progress of a sweep: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from suites.engine.execute import Finished
from suites.engine.plan import Planned


class Progress:
    """One bar for the cells and one for what the present cell does; lines where output is no terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._cells = self._bars.add_task("cells", total=None, visible=False)
        self._inside = self._bars.add_task("", total=None, visible=False)
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
        if finished:
            self._console.print(f"{finished} of {len(planned)} cells are done already")
        self._bars.update(self._cells, total=self._total, visible=self._total > 0)

    def detail(self, what: str, done: int, total: int) -> None:
        """Something inside the present cell moves on."""
        self._bars.update(self._inside, description=what, completed=done, total=total, visible=True)

    def finished(self, done: Finished) -> None:
        """A cell is done."""
        self._done += 1
        cell = done.item.cell
        line = f"[{self._done}/{self._total}] {cell.task} {cell.suite} {cell.label} seed {cell.seed}: {done.status}"
        line += f" ({done.seconds:.1f} s)" + (f": {done.message}" if done.message else "")
        self._console.print(line, markup=False, soft_wrap=True)
        self._bars.update(self._cells, completed=self._done)
        self._bars.update(self._inside, visible=False)
