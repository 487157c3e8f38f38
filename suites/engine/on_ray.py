"""An executor on a Ray cluster: each group of cells is a Ray task in its own process.

Ray queues the tasks and places them by their needs. A cell needs one GPU if the device is cuda, and one CPU per thread
(OMP_NUM_THREADS, or 1). A timing needs all CPUs of the largest node, so that it is alone there.

If the nodes share the output folder, cells write there, as local workers do, and an interrupted cell resumes from its
checkpoint. Otherwise a cell works in a temporary folder and starts from the beginning. In both cases its rows come back
with the task. The code is sent to the nodes with the tasks; its dependencies must be installed there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import estimators
import results
import suites
import vmo
from results import table
from suites.engine.cell import Workshop
from suites.engine.execute import one_line, provenance
from suites.engine.executor import Ended, Group, work
from suites.engine.plan import Planned
from suites.engine.progress import silent
from suites.tasks.base import Context
from vmo import data

Rows = list[dict[str, Any]]


def connect() -> None:
    """Join the cluster at RAY_ADDRESS, or the one this machine is part of. Raises ValueError if there is none."""
    try:
        import ray
    except ImportError:
        raise ValueError("--launcher ray needs Ray: pip install ray") from None
    if ray.is_initialized():
        return
    code = [str(Path(str(package.__file__)).parent) for package in (estimators, results, suites, vmo)]
    try:
        ray.init(
            address="auto",
            runtime_env={"py_modules": code, "excludes": ["reference/", "runs/", "__pycache__/"]},
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        hint = "set RAY_ADDRESS, or start a cluster with `ray start --head`"
        raise ValueError(f"--launcher ray found no Ray cluster ({one_line(error)}); {hint}") from None


def has_gpu() -> bool:
    """Whether a node of the cluster has a GPU."""
    return any(node.get("GPU", 0) >= 1 for node in _nodes())


class OnRay:
    """Runs groups on the cluster joined by `connect`. Progress inside a cell is not reported."""

    room, apart, separates = sys.maxsize, True, True

    def begin(self, shop: Workshop, rows: Path) -> None:
        """Prepare for a sweep. Raises ValueError if no node has the resources that a cell needs."""
        import ray

        self._cuda = shop.context.device.type == "cuda"
        self._cpus, self._all_cpus = _cpus(self._cuda)
        self._rows = rows
        self._running: dict[Any, Group] = {}
        self._remote = ray.remote(max_calls=1, max_retries=0)(_work)  # the sweep handles retries
        code = {key: provenance()[key] for key in ("commit", "dirty")}
        self._there = Workshop(_elsewhere(shop.context), shop.out.resolve(), shop.seconds, code)
        self._end = contextlib.ExitStack()
        self._mark = self._end.enter_context(_mark(shop.out))

    def submit(self, group: Group) -> None:
        need = self._all_cpus if group.alone else self._cpus
        threads = int(os.environ.get("OMP_NUM_THREADS") or need)
        learned = {name: table.rows_of(self._rows, name) for name in _needed(group.items)}
        task = self._remote.options(num_cpus=need, num_gpus=int(self._cuda))
        self._running[task.remote(group, self._there, learned, threads, self._mark)] = group

    def wait(self, seconds: float | None) -> Sequence[Ended]:
        import ray

        over, _ = ray.wait(list(self._running), timeout=seconds)
        return [self._over(ref, self._running.pop(ref)) for ref in over]

    def end(self) -> None:
        import ray

        for ref in self._running:
            ray.cancel(ref, force=True)
        self._end.close()

    def _over(self, ref: Any, group: Group) -> Ended:
        """Write the rows that a task has returned."""
        import ray

        try:
            _keep(ray.get(ref), self._rows)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            if isinstance(cause, OSError) and not isinstance(cause, ray.exceptions.RayError):
                raise OSError(f"on a node of the Ray cluster: {one_line(cause)}") from None
            return Ended(group, f"on the Ray cluster: {one_line(cause)}")
        return Ended(group)


def _work(group: Group, shop: Workshop, learned: Mapping[str, Rows], threads: int, mark: str) -> dict[str, Rows]:
    """Run a group on a node. Returns the rows of its cells, by hash."""
    torch.set_num_threads(threads)
    shared = (shop.out / mark).exists()
    with contextlib.nullcontext(shop.out) if shared else tempfile.TemporaryDirectory() as folder:
        here = Workshop(shop.context, Path(folder), shop.seconds, shop.code)
        rows = here.out / "rows"
        if not shared:
            _keep(learned, rows)
        work(group, here, rows)
        return {item.cell.hash: table.rows_of(rows, item.cell.hash) for item in group.items}


def _keep(found: Mapping[str, Rows], rows: Path) -> None:
    """Write rows that are missing here. On shared storage they appear by themselves."""
    for name, lines in found.items():
        if table.rows_of(rows, name) != lines:
            table.write(rows, name, lines)


def _needed(items: Sequence[Planned]) -> set[str]:
    """The hashes of the cells whose learned networks these need."""
    return {learned.hash for item in items if (learned := item.cell.needed()) is not None}


@contextlib.contextmanager
def _mark(out: Path) -> Iterator[str]:
    """The name of a temporary file in `out`. A node that sees this file has the same folder."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f".sweep-{secrets.token_hex(8)}"
    path.touch()
    try:
        yield path.name
    finally:
        path.unlink(missing_ok=True)


def _elsewhere(context: Context) -> Context:
    """The context for a process with another working directory and environment: absolute paths, no progress."""
    root = Path(context.data_root or os.environ.get(data.ROOT_VARIABLE) or "data").resolve()
    own = Path(context.dataset)
    dataset = str(own.resolve()) if own.suffix == ".npz" and own.is_file() else context.dataset
    return replace(context, progress=silent, data_root=root, dataset=dataset)


def _nodes() -> list[dict[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _cpus(cuda: bool) -> tuple[int, int]:
    """CPUs that a cell needs, and CPUs of the largest node that can run it."""
    cpus = int(os.environ.get("OMP_NUM_THREADS") or 1)
    have = [int(node.get("CPU", 0)) for node in _nodes() if not cuda or node.get("GPU", 0) >= 1]
    if max(have, default=0) < cpus:
        needs = f"{cpus} CPU{'s' * (cpus > 1)} (OMP_NUM_THREADS){' and a GPU' * cuda}"
        raise ValueError(f"--launcher ray: no node of the cluster has the {needs} that a cell needs")
    return cpus, max(have)
