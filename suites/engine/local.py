"""Executors on this machine: in this process, or in several worker processes.

Workers are forked from a server process that has already imported torch, so they start in milliseconds. They end when
this process ends, for whatever reason.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from suites.engine.cell import Workshop
from suites.engine.executor import Ended, Group, work
from suites.tasks.base import Context


class InProcess:
    """Runs one group after the other in this process."""

    room, apart, separates = 1, False, False

    def begin(self, shop: Workshop, rows: Path) -> None:
        self._shop, self._rows = shop, rows

    def submit(self, group: Group) -> None:
        self._group = group

    def wait(self, seconds: float | None) -> Sequence[Ended]:
        """Run the submitted group."""
        work(self._group, self._shop, self._rows)
        return [Ended(self._group)]

    def end(self) -> None: ...


class LocalProcesses:
    """Runs each group in its own process, with an equal share of the threads; an `alone` group gets all threads.

    With GPUs, process slot i uses GPU i modulo their number.
    """

    apart, separates = True, False

    def __init__(self, processes: int) -> None:
        self.room = processes

    def begin(self, shop: Workshop, rows: Path) -> None:
        self._shop, self._rows = shop, rows
        self._workers: list[_Worker] = []
        self._free = deque(range(self.room))
        self._folder = tempfile.TemporaryDirectory()

    def submit(self, group: Group) -> None:
        start = multiprocessing.get_context("forkserver")
        start.set_forkserver_preload([__name__])
        slot = self._free.popleft()
        progress, told = start.Pipe(duplex=False)
        said = Path(self._folder.name) / str(slot)
        shop, threads = self._shop, torch.get_num_threads()
        orders = _Orders(
            group,
            replace(shop.context, progress=_Told(told)),
            shop.out,
            shop.seconds,
            self._rows,
            threads if group.alone else max(1, threads // self.room),
            _visible(slot) if shop.context.device.type == "cuda" else None,
            said,
        )
        process = start.Process(target=_run, args=(orders,), daemon=True)
        process.start()
        told.close()
        self._workers.append(_Worker(process, progress, group, slot, said))

    def wait(self, seconds: float | None) -> Sequence[Ended]:
        """Forward the workers' progress until one of them has ended."""
        until = float("inf") if seconds is None else time.monotonic() + seconds
        while not (over := [worker for worker in self._workers if not worker.process.is_alive()]):
            left = until - time.monotonic()
            if left <= 0:
                return []
            heard = {worker.progress: worker for worker in self._workers if not worker.progress.closed}
            ready = wait([*heard, *(worker.process.sentinel for worker in self._workers)], min(left, 3600))
            for connection in ready:
                if isinstance(connection, Connection):
                    heard[connection].forward(self._shop.context)
        return [self._over(worker) for worker in over]

    def end(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.progress.close()
        self._folder.cleanup()

    def _over(self, worker: _Worker) -> Ended:
        self._workers.remove(worker)
        self._free.append(worker.slot)
        worker.process.join()
        worker.progress.close()
        text = worker.said.read_text(errors="replace") if worker.said.exists() else ""
        worker.said.unlink(missing_ok=True)
        code, last = worker.process.exitcode, text.strip().rpartition("\n")[2].strip()
        if code == os.EX_IOERR:
            raise OSError(last)
        sys.stderr.write(text)
        return Ended(worker.group, f"with exit code {code}" + (f": {last[:300]}" if last else "") if code else None)


@dataclass
class _Worker:
    process: BaseProcess
    progress: Connection
    group: Group
    slot: int
    said: Path
    title: str = ""

    def forward(self, context: Context) -> None:
        """Forward one progress message, under the title of the worker's current cell."""
        try:
            what, done, total = self.progress.recv()
        except (EOFError, OSError):  # the worker has ended or is ending
            self.progress.close()
            return
        if total:
            context.progress(self.title, 0, 0)
        else:
            self.title = what
        context.progress(what, done, total)


@dataclass(frozen=True)
class _Orders:
    """The arguments of a worker."""

    group: Group
    context: Context
    out: Path
    seconds: float
    rows: Path
    threads: int
    visible: str | None
    said: Path


@dataclass
class _Told:
    """Sends progress to the sweep, at most once a second, and always at the start of a cell."""

    sweep: Connection
    last: float = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if total and now < self.last + 1:
            return
        self.last = now
        with contextlib.suppress(OSError):
            self.sweep.send((what, done, total))


def _visible(slot: int) -> str:
    """The GPU of a slot."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = given.split(",") if given else [str(i) for i in range(torch.cuda.device_count())]
    return there[slot % len(there)]


def _run(orders: _Orders) -> None:
    """The main function of a worker. Its standard error goes to a file that the sweep reads."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with orders.said.open("w") as file:
        os.dup2(file.fileno(), 2)
    if orders.visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = orders.visible
    torch.set_num_threads(orders.threads)
    try:
        work(orders.group, Workshop(orders.context, orders.out, orders.seconds), orders.rows)
    except OSError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(os.EX_IOERR)


def _end_with_parent() -> None:
    """End this worker when its parent ends, because a killed parent cannot end its workers."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
