"""Cells in parallel on one machine: one process for each group of cells that share work, so many at a time.

A process that dies takes nothing with it: its group is tried once more, where runs go on from their checkpoints, and
then recorded as failed. Timings are taken alone, after everything else.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path

import torch

from results import table
from suites.engine.cell import Workshop
from suites.engine.execute import Finished, execute, record
from suites.engine.plan import Planned
from suites.tasks.base import Context

TRIES = 2
ALONE = ("overhead", "scaling")
TOGETHER = ("bias", "variance")  # they read the same measurement


def sweep(planned: Sequence[Planned], shop: Workshop, rows: Path, workers: int) -> Iterator[Finished]:
    """`execute` with several processes; on GPUs, process i uses the i-th of them in turn."""
    start_anew(planned, shop)
    if workers == 1:
        yield from execute(planned, shop, rows)
        return
    to_do = [item for item in planned if item.to_do]
    before = stamps(to_do, rows)
    parallel = [item for item in to_do if not item.suite.alone]
    for controls in (False, True):  # a control needs what was learned
        wave = [item for item in parallel if (item.cell.controlled() is not None) == controls]
        yield from _side_by_side(wave, before, shop, rows, workers)
    yield from execute([item for item in to_do if item.suite.alone], shop, rows)


def start_anew(planned: Sequence[Planned], shop: Workshop) -> None:
    """Discard the checkpoints of what is run anew: once, for it may be one run for several cells, and a worker may die
    in it."""
    for keeper in {item.cell.run: shop.keeper(item.cell) for item in planned if item.again}.values():
        keeper.discard()


def groups(to_do: Sequence[Planned]) -> list[list[Planned]]:
    """Neighbours that share work."""
    return [list(items) for _, items in itertools.groupby(to_do, _group)]


def stamps(to_do: Sequence[Planned], rows: Path) -> dict[Planned, int | None]:
    """When the rows of each cell were written."""
    return {item: _stamp(item, rows) for item in to_do}


def lost(items: Sequence[Planned], before: dict[Planned, int | None], rows: Path) -> list[Planned]:
    """Cells without rows; those that another sweep wrote are no loss, unless they are what this one is to replace."""
    return [item for item in items if (stamp := _stamp(item, rows)) is None or (item.again and stamp == before[item])]


def finished(item: Planned, rows: Path) -> Finished:
    """What the rows of a cell say of it."""
    kept = table.read_file(rows / f"{item.cell.hash}.jsonl")[0]
    status = table.status(rows, item.cell.hash) or "error"
    return Finished(item, status, kept["message"], kept["provenance"]["wall_s"])


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody would see. A lambda cannot be sent to another process."""


def _side_by_side(
    to_do: Sequence[Planned], before: dict[Planned, int | None], shop: Workshop, rows: Path, workers: int
) -> Iterator[Finished]:
    queue = deque((items, 1) for items in groups(to_do))
    running: dict[int, tuple[multiprocessing.process.BaseProcess, list[Planned], int, int]] = {}
    free = deque(range(workers))
    count = 0
    try:
        while queue or running:
            while queue and free:
                items, tries = queue.popleft()
                slot = free.popleft()
                process = _start(items, shop, rows, slot, workers)
                running[process.sentinel] = (process, items, tries, slot)
            under_way = [items[0].cell for _, items, _, _ in running.values()]
            what = ", ".join(f"{cell.task} {cell.suite} {cell.label} {cell.seed}" for cell in under_way)
            shop.context.progress(f"now: {what}", count, len(to_do))
            for sentinel in wait(list(running)):
                process, items, tries, slot = running.pop(int(sentinel))  # type: ignore[arg-type]
                process.join()
                free.append(slot)
                gone = lost(items, before, rows)
                if gone and tries < TRIES:
                    queue.appendleft((items, tries + 1))
                    continue
                for item in gone:
                    message = f"the worker died {tries} times, the last time with exit code {process.exitcode}"
                    failure = table.row("cell", None, status="error", message=message)
                    record(item, shop, rows, [failure], 0.0)
                count += len(items)
                for item in items:
                    yield finished(item, rows)
    finally:
        for process, *_ in running.values():  # what they were at goes on from its checkpoint another time
            process.terminate()


def _group(item: Planned) -> object:
    cell = item.cell
    return (cell.task, cell.label, cell.seed) if cell.suite in TOGETHER else cell.hash


def _start(
    items: list[Planned], shop: Workshop, rows: Path, slot: int, workers: int
) -> multiprocessing.process.BaseProcess:
    threads = max(1, torch.get_num_threads() // workers)
    context = Context(**{**vars(shop.context), "progress": silent})
    process = multiprocessing.get_context("spawn").Process(
        target=_work, args=(items, context, shop.out, shop.seconds, rows, threads), daemon=True
    )
    kept = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shop.context.device.type == "cuda":
        visible = kept.split(",") if kept else [str(i) for i in range(torch.cuda.device_count())]
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[slot % len(visible)]
    try:
        process.start()
    finally:
        if kept is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = kept
    return process


def _stamp(item: Planned, rows: Path) -> int | None:
    path = rows / f"{item.cell.hash}.jsonl"
    return path.stat().st_mtime_ns if path.exists() else None


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers; they go on from their checkpoints in another sweep."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _work(items: list[Planned], context: Context, out: Path, seconds: float, rows: Path, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to deal with
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        for _ in execute(items, Workshop(context, out, seconds), rows):
            pass
    except OSError as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
