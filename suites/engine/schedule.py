"""The rules of a sweep, whatever carries it out.

- Cells that share work are one group and run one after the other. Nothing runs twice at the same time, and plain
  training that is one and the same for several tasks counts as one thing.
- A control waits for the network that it is a control of.
- Timed cells run alone, after everything else, unless the executor separates them.
- A group whose worker died is tried again, `TRIES` times in all, where runs go on from their checkpoints; then those
  of its cells that have no rows are recorded as failed.
- What another sweep on the same folder is busy with is left to it, and its rows are waited for.
- A failure of the storage is not of a cell, and stops the sweep.
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
"""Seconds between two looks at what another sweep is busy with."""


def sweep(planned: Sequence[Planned], shop: Workshop, rows: Path, executor: Executor) -> Iterator[Finished]:
    """Run what is to do and yield each cell when it is done. What is under way when this is closed is cancelled.

    Raises:
        OSError: something cannot be written; what was finished stays, and runs under way go on from their checkpoints.
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
    """Which groups wait and which run."""

    def __init__(self, to_do: Sequence[Planned], shop: Workshop, rows: Path, places: dict[str, str]) -> None:
        self.shop, self.rows = shop, rows
        self.before = {item.cell.hash: self._stamp(item) for item in to_do}
        self.unfinished = {item.cell.hash for item in to_do}
        self.waiting = [Group(items, any(item.suite.alone for item in items), places) for items in _together(to_do)]
        self.running: list[Group] = []
        self.held = False  # whether something waits only because another sweep is busy with it

    def start(self, executor: Executor) -> Iterator[Finished]:
        """Hand over what may start, and give cells that another sweep has done meanwhile."""
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
        """What is done of a group is done; the rest is tried again, or recorded as failed."""
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
        """Whether it is a control of what is not finished, or the same run as one under way."""
        learned = {other.hash for item in group.items if (other := item.cell.controlled()) is not None}
        learned -= {item.cell.hash for item in group.items}
        under_way = {item.cell.run for other in self.running for item in other.items}
        return bool(learned & self.unfinished or under_way & {item.cell.run for item in group.items})

    def _held(self, item: Planned) -> bool:
        """Whether another process is busy with a cell. The lock is the system's, and goes with the process."""
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
        """Cells without rows, or with those that were to be replaced."""
        return tuple(
            item
            for item in items
            if (stamp := self._stamp(item)) is None or (item.again and stamp == self.before[item.cell.hash])
        )

    def _stamp(self, item: Planned) -> tuple[int, int] | None:
        """Which file has the rows of a cell, for every writing makes another, and when it was written."""
        path = self._path(item)
        return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None

    def _path(self, item: Planned) -> Path:
        return self.rows / f"{item.cell.hash}.jsonl"


def _together(to_do: Sequence[Planned]) -> list[tuple[Planned, ...]]:
    """Groups of what shares work, in the order of their first cells."""
    found: dict[object, list[Planned]] = {}
    for item in to_do:
        found.setdefault(item.cell.work, []).append(item)
    return [tuple(items) for items in found.values()]


def _discard(to_do: Sequence[Planned], shop: Workshop) -> None:
    """Forget the checkpoints of what is run anew: once, for it may be one run for several cells, and a worker may die
    in it."""
    for keeper in {item.cell.run: shop.keeper(item.cell) for item in to_do if item.again}.values():
        keeper.discard()
