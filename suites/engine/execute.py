"""Runs planned cells one after the other. Each writes a file of rows, also if it fails."""

from __future__ import annotations

import functools
import platform
import subprocess
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock

from results import table
from suites.engine.cell import Cell, Workshop
from suites.engine.plan import Planned
from suites.learned import Missing, widths
from vmo.learner import Diverged


class Finished(NamedTuple):
    """A finished cell: the status and the message of its rows, and the seconds it took."""

    item: Planned
    status: str
    message: str | None
    seconds: float


def execute(planned: Sequence[Planned], shop: Workshop, rows: Path) -> Iterator[Finished]:
    """Run the cells that are to do. Yields each with its status and message.

    If another sweep on the same folder is running a cell, this one waits and uses the rows. If that process died, the
    cell is run here: the lock belongs to the operating system and ends with the process.

    Raises:
        OSError: a file cannot be written. Finished cells are kept, and an interrupted run resumes from its checkpoint.
    """
    for item in planned:
        if not item.to_do:
            continue
        with FileLock(shop.lock(item.cell)):
            elsewhere = None if item.again else table.status(rows, item.cell.hash)
            if elsewhere is None:
                shop.context.progress(title(item.cell), 0, 0)
                yield _run(item, shop, rows)
            else:
                yield Finished(item, elsewhere, "by another process", 0.0)


def title(cell: Cell) -> str:
    """The title of a cell in progress lines: "width accuracy rloo seed 0"."""
    return f"{cell.task} {cell.suite} {cell.label} seed {cell.seed}"


def record(item: Planned, shop: Workshop, rows: Path, found: Sequence[dict[str, Any]], seconds: float) -> None:
    """Write the rows of a cell, with the cell's description and its provenance."""
    shared = {
        "cell": item.cell.described(),
        "provenance": {
            **provenance(),
            **shop.code,
            **_machine(item, shop),
            **_network(item, rows),
            "wall_s": round(seconds, 3),
        },
    }
    table.write(rows, item.cell.hash, [{**one, **shared} for one in found])


def _run(item: Planned, shop: Workshop, rows: Path) -> Finished:
    begin = time.perf_counter()
    status, message = "ok", None
    found: list[dict[str, Any]] = []
    if item.impossible is not None:
        status, message = "infeasible", item.impossible
    else:
        try:
            found = item.suite.run(shop.job(item.cell))
        except Diverged as error:
            status, message = "diverged", str(error)
        except Missing as error:
            status, message = "infeasible", str(error)
        except OSError:  # a full disk, for example, affects every cell
            raise
        except (torch.OutOfMemoryError, MemoryError) as error:
            status, message = "oom", one_line(error)
        except Exception as error:  # the sweep goes on; the row says what failed and where
            where = traceback.extract_tb(error.__traceback__)[-1]
            status = "error"
            message = f"{type(error).__name__}: {one_line(error)} ({Path(where.filename).name}:{where.lineno})"
    found = found or [table.row("cell", None, status=status, message=message)]
    seconds = time.perf_counter() - begin
    record(item, shop, rows, found, seconds)
    return Finished(item, status, message, seconds)


def _network(item: Planned, rows: Path) -> dict[str, Any]:
    """The widths of the learned network that a cell needs: the cell is outdated if another is learned later."""
    needed = item.cell.needed()
    return {} if needed is None else {"learned": widths(table.rows_of(rows, needed.hash))}


def _machine(item: Planned, shop: Workshop) -> dict[str, Any]:
    device = shop.context.device
    name = f"cpu × {torch.get_num_threads()}"
    if device.type == "cuda":  # this machine may have none if it records a failure of another machine
        name = torch.cuda.get_device_name(device) if torch.cuda.is_available() else "cuda"
    return {"device": name, "dtype": item.suite.dtype(item.cell.settings)}


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


@functools.cache
def provenance() -> dict[str, Any]:
    """Commit, versions and instruction set. Neither host names nor paths."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if (changes := _git("status", "--porcelain")) is None else bool(changes),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",  # sums are rounded by it
    }


def _git(*words: str) -> str | None:
    """The output of a git command in the folder of this code; None if it is not a git checkout."""
    try:
        here = Path(__file__).parent
        top = subprocess.run(
            ["git", "ls-files", "--error-unmatch", __file__], cwd=here, capture_output=True, timeout=10
        )
        if top.returncode:
            return None
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
