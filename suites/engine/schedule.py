"""The rules of a sweep, for every executor.

- Cells that share work form one group and run one after the other. The same run never runs twice at a time. Plain
  training is one run for all tasks.
- A control waits for the run that learns its network.
- Timed cells run alone, after everything else, unless the executor separates them.
- If a worker dies, its group is started again, `TRIES` times in total, and resumes from checkpoints. After that its
  cells without rows are recorded as failed.
- Cells that another sweep on the same folder is running are left to it. This sweep waits for their rows.
- A write error affects all cells, so it stops the sweep.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from results import table
from suites.engine.cell import Workshop
from suites.engine.execute import Finished, record
from suites.engine.executor import Executor, Group, registered
from suites.engine.plan import Planned

TRIES = 3
PAUSE = 0.5
"""Seconds between two checks of what another sweep is running."""


def sweep(planned: Sequence[Planned], shop: Workshop, rows: Path, executor: Executor) -> Iterator[Finished]:
    """Run the cells that are to do and yield each when it is done. Closing this iterator cancels running cells.

    Raises:
        OSError: a file cannot be written. Finished cells are kept, and interrupted runs resume from their checkpoints.
        ValueError: the executor cannot run a cell.
    """
    to_do = [item for item in planned if item.to_do]
    board = _Board(to_do, shop, rows, registered(to_do) if executor.apart else {})
    executor.begin(shop, rows)
    try:
        _discard(to_do, shop)
        while board.waiting or board.running:
            yield from board.start(executor)
            if board.running:
                for group, died in executor.wait(PAUSE if board.held else None):
                    yield from board.ended(group, died)
            elif board.held:
                time.sleep(PAUSE)
    finally:
        executor.end()


class _Board:
    """Keeps track of waiting and running groups."""

    def __init__(self, to_do: Sequence[Planned], shop: Workshop, rows: Path, places: dict[str, str]) -> None:
        self.shop, self.rows = shop, rows
        self.before = {item.cell.hash: self._stamp(item) for item in to_do}
        self.unfinished = {item.cell.hash for item in to_do}
        self.waiting = [Group(items, any(item.suite.alone for item in items), places) for items in _together(to_do)]
        self.running: list[Group] = []
        self.held = False  # whether a group waits only because another sweep is running one of its cells

    def start(self, executor: Executor) -> Iterator[Finished]:
        """Submit groups that may start. Yields cells that another sweep has finished meanwhile."""
        self.held = False
        for group in sorted(self.waiting, key=lambda group: group.alone):
            if len(self.running) >= executor.room:
                return
            crowd = self.running if group.alone else [other for other in self.running if other.alone]
            if (crowd and not executor.separates) or self._needs_another(group):
                continue
            if any(self._held(item) for item in group.items):
                self.held = True
                continue
            self.waiting.remove(group)
            left = self._lost(group.items)
            if left:
                started = replace(group, items=left)
                self.running.append(started)
                executor.submit(started)
            for item in group.items:
                if item not in left:
                    yield self._finish(item)._replace(message="by another process", seconds=0.0)

    def ended(self, group: Group, died: str | None) -> Iterator[Finished]:
        """Yield the finished cells of an ended group. The others are tried again or recorded as failed."""
        self.running.remove(group)
        left, tries = self._lost(group.items), group.tries + 1
        again = tries < TRIES
        if left and again:
            self.waiting.insert(0, replace(group, items=left, tries=tries))
        elif left:
            how = f"the worker died {tries} times, the last time {died}" if died else "the worker ended without rows"
            for item in left:
                record(item, self.shop, self.rows, [table.row("cell", None, status="error", message=how)], 0.0)
        for item in group.items:
            if item not in left or not again:
                yield self._finish(item)

    def _needs_another(self, group: Group) -> bool:
        """Whether a group needs the result of an unfinished cell, or contains a run that is already running."""
        learned = {other.hash for item in group.items if (other := item.cell.needed()) is not None}
        learned -= {item.cell.hash for item in group.items}
        under_way = {item.cell.run for other in self.running for item in other.items}
        return bool(learned & self.unfinished or under_way & {item.cell.run for item in group.items})

    def _held(self, item: Planned) -> bool:
        """Whether another process is running a cell. The lock belongs to the system and ends with the process."""
        try:
            with FileLock(self.shop.lock(item.cell), timeout=0):
                return False
        except Timeout:
            return True

    def _finish(self, item: Planned) -> Finished:
        self.unfinished.discard(item.cell.hash)
        kept = table.read_file(self._path(item))
        status = max((row["status"] for row in kept), key=table.STATUSES.index)
        return Finished(item, status, kept[0]["message"], kept[0]["provenance"]["wall_s"])

    def _lost(self, items: Iterable[Planned]) -> tuple[Planned, ...]:
        """Cells that have no rows, or still have the rows that were to be replaced."""
        return tuple(
            item
            for item in items
            if (stamp := self._stamp(item)) is None or (item.again and stamp == self.before[item.cell.hash])
        )

    def _stamp(self, item: Planned) -> tuple[int, int] | None:
        """Inode and time of the file of a cell's rows, which change whenever it is written; None if there is none."""
        path = self._path(item)
        return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None

    def _path(self, item: Planned) -> Path:
        return self.rows / f"{item.cell.hash}.jsonl"


def _together(to_do: Sequence[Planned]) -> list[tuple[Planned, ...]]:
    """Cells grouped by shared work, in the order of their first cells."""
    found: dict[object, list[Planned]] = {}
    for item in to_do:
        found.setdefault(item.cell.work, []).append(item)
    return [tuple(items) for items in found.values()]


def _discard(to_do: Sequence[Planned], shop: Workshop) -> None:
    """Delete the checkpoints of cells that run again. This is done once, at the start: several cells may share a run,
    and a run whose worker died must be able to resume."""
    for keeper in {item.cell.run: shop.keeper(item.cell) for item in to_do if item.again}.values():
        keeper.discard()
