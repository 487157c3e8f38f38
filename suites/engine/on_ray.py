"""Cells on a Ray cluster: one task, in a process of its own, for each group of cells that share work.

Ray places the tasks by what they need. A cell needs one GPU, where the device is cuda, and as many CPUs as it has
threads: OMP_NUM_THREADS, or 1. A timing needs every CPU of the largest node, so that it is alone there. What a lost
node was running Ray gives to another.

Where the nodes share the folder of everything that is written, cells write there, as local workers do, and one that is
given again goes on from its checkpoint. Elsewhere a cell works in a temporary folder and begins anew. Its rows come
back with the task either way. The code goes to the nodes with the tasks; what it depends on is installed there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
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
from suites.engine.execute import Finished, execute, provenance, record
from suites.engine.local import finished, groups, lost, silent, stamps, start_anew
from suites.engine.plan import Planned
from suites.tasks.base import Context
from vmo import data

RETRIES = 3  # of a task whose node or process is lost

Rows = list[dict[str, Any]]


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names, or that this machine is part of. Raises ValueError where it cannot."""
    try:
        import ray
    except ImportError:
        raise ValueError("--launcher ray needs Ray: pip install 'vmo-gradient-bench[ray]'") from None
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
        hint = "RAY_ADDRESS names one, and `ray start --head` starts one"
        raise ValueError(f"--launcher ray found no Ray cluster ({_one_line(error)}); {hint}") from None


def has_gpu() -> bool:
    """Whether a node has one."""
    return any(node.get("GPU", 0) >= 1 for node in _nodes())


def sweep(planned: Sequence[Planned], shop: Workshop, rows: Path) -> Iterator[Finished]:
    """`execute` on the cluster that was joined. What is under way when this is closed is cancelled.

    Raises:
        ValueError: no node has what a cell needs.
    """
    import ray

    cuda = shop.context.device.type == "cuda"
    cpus, all_cpus = _cpus(cuda)
    start_anew(planned, shop)
    to_do = [item for item in planned if item.to_do]
    before = stamps(to_do, rows)
    unfinished = {item.cell.hash for item in to_do}
    waiting = groups(to_do)
    running: dict[Any, list[Planned]] = {}
    remote = ray.remote(max_calls=1)(_work)
    code = {key: provenance()[key] for key in ("commit", "dirty")}
    there = Workshop(_elsewhere(shop.context), shop.out.resolve(), shop.seconds, code)
    with _mark(shop.out) as mark:
        try:
            while waiting or running:
                ready = [items for items in waiting if not _controlled(items) & unfinished]  # it needs what was learned
                waiting = [items for items in waiting if items not in ready]
                for items in ready:
                    need = all_cpus if items[0].suite.alone else cpus
                    threads = int(os.environ.get("OMP_NUM_THREADS") or need)
                    task = remote.options(num_cpus=need, num_gpus=int(cuda), max_retries=RETRIES)
                    learned = {name: table.read_file(_file(rows, name)) for name in _controlled(items)}
                    running[task.remote(items, there, learned, threads, mark)] = items
                shop.context.progress("cells, on the Ray cluster", len(to_do) - len(unfinished), len(to_do))
                (ref,), _ = ray.wait(list(running))
                items = running.pop(ref)
                try:
                    _keep(ray.get(ref), rows)
                except ray.exceptions.RayError as error:
                    message = f"the task failed on the Ray cluster: {_one_line(getattr(error, 'cause', None) or error)}"
                    for item in lost(items, before, rows):
                        record(item, shop, rows, [table.row("cell", None, status="error", message=message)], 0.0)
                unfinished -= {item.cell.hash for item in items}
                for item in items:
                    yield finished(item, rows)
        finally:
            for ref in running:  # what they were at goes on from its checkpoint another time
                ray.cancel(ref, force=True)


def _work(
    items: list[Planned], shop: Workshop, learned: Mapping[str, Rows], threads: int, mark: str
) -> dict[str, Rows]:
    """On a node: the rows of the cells, by their names."""
    torch.set_num_threads(threads)
    shared = (shop.out / mark).exists()
    with contextlib.nullcontext(shop.out) if shared else tempfile.TemporaryDirectory() as folder:
        here = Workshop(shop.context, Path(folder), shop.seconds, shop.code)
        rows = here.out / "rows"
        if not shared:
            _keep(learned, rows)
        for _ in execute(items, here, rows):
            pass
        return {item.cell.hash: table.read_file(_file(rows, item.cell.hash)) for item in items}


def _keep(found: Mapping[str, Rows], rows: Path) -> None:
    """Write what is not there: on shared storage everything is, once it can be seen here."""
    for name, lines in found.items():
        path = _file(rows, name)
        if not path.exists() or table.read_file(path) != lines:
            table.write(rows, name, lines)


def _file(rows: Path, name: str) -> Path:
    return rows / f"{name}.jsonl"


def _controlled(items: Sequence[Planned]) -> set[str]:
    """The cells whose learned networks these are controls of."""
    return {learned.hash for item in items if (learned := item.cell.controlled()) is not None}


@contextlib.contextmanager
def _mark(out: Path) -> Iterator[str]:
    """The name of a file in `out`, by which a node can tell that it has the same folder."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f".sweep-{secrets.token_hex(8)}"
    path.touch()
    try:
        yield path.name
    finally:
        path.unlink(missing_ok=True)


def _elsewhere(context: Context) -> Context:
    """The same for a process with another working directory and environment, whose progress nobody would see."""
    root = Path(context.data_root or os.environ.get(data.ROOT_VARIABLE) or "data").resolve()
    own = Path(context.dataset)
    dataset = str(own.resolve()) if own.suffix == ".npz" and own.is_file() else context.dataset
    return replace(context, progress=silent, data_root=root, dataset=dataset)


def _nodes() -> list[dict[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _cpus(cuda: bool) -> tuple[int, int]:
    """What a cell needs, and what the largest node that can run it has."""
    cpus = int(os.environ.get("OMP_NUM_THREADS") or 1)
    have = [int(node.get("CPU", 0)) for node in _nodes() if not cuda or node.get("GPU", 0) >= 1]
    if max(have, default=0) < cpus:
        needs = f"{cpus} CPU{'s' * (cpus > 1)} (OMP_NUM_THREADS){' and a GPU' * cuda}"
        raise ValueError(f"--launcher ray: no node of the cluster has the {needs} that a cell needs")
    return cpus, max(have)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
