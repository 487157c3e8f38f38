"""A cell, one measurement to make, and the workshop in which cells are measured."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from results import table
from results.table import SCHEMA
from suites import settings, suite
from suites.labels import PLAIN, Label
from suites.settings import Settings
from suites.suite import Job, Rows, Suite
from suites.tasks import factory
from suites.tasks.base import Context, Task
from suites.tasks.granted import Granted
from vmo.checkpoint import Keeper
from vmo.data import Identity


@dataclass(frozen=True)
class Cell:
    """One suite of one estimator on one task and seed, with everything that its code is handed.

    Its identity is all of that, the versions of what computes it, the content of the data and the schema. What it is
    called (preset, label and name of the data set) is not, nor the git commit, which is provenance.

    Attributes:
        own: the settings of the suite.
        handed: those of each role of the task.
        uses: label and version of each estimator that is used beside the one that is measured.
        data: None where no data are read.
        preset: the label of the preset, its name, and what was changed in it, for tables.
    """

    suite: str
    suite_version: int
    task: str
    task_version: int
    label: Label
    seed: int
    device: str
    own: Settings
    handed: tuple[tuple[str, Settings], ...]
    uses: tuple[tuple[str, int], ...] = ()
    data: Identity | None = None
    preset: tuple[str, str, tuple[tuple[str, Any], ...]] = field(default=("", "", ()), compare=False)

    @functools.cached_property
    def settings(self) -> dict[str, dict[str, Any]]:
        """What was handed over, by group and field."""
        return settings.identity([self.own, *(handed for _, handed in self.handed)])

    def identity(self) -> dict[str, Any]:
        """What the hash is made of."""
        return {
            "schema": SCHEMA,
            "suite": self.suite,
            "suite_version": self.suite_version,
            "task": self.task,
            "task_version": self.task_version,
            "name": self.label.name,
            "options": dict(self.label.options),
            "estimator_version": self.label.version,
            "uses": dict(self.uses),
            "data": None if self.data is None else self.data.content,
            "seed": self.seed,
            "device": self.device,
            "settings": self.settings,
        }

    def described(self) -> dict[str, Any]:
        """The cell as its rows record it: its identity, and what it is called."""
        label, name, changed = self.preset
        called = {"estimator": str(self.label), "preset": label, "preset_name": name, "changed": dict(changed)}
        data = {"dataset": "none", "data_note": ""}
        if self.data is not None:
            data = {"dataset": self.data.dataset, "data_note": self.data.note}
        found = {**self.identity(), **called, **data}
        del found["schema"]  # which a row has by itself
        return found

    @functools.cached_property
    def hash(self) -> str:
        """16 hexadecimal digits that name the cell."""
        return digest(self.identity())

    @property
    def work(self) -> object:
        """Cells of which this is equal share what they compute, and are run together."""
        shares = suite.get(self.suite).shares
        return self.hash if shares is None else (shares, self.task, self.label, self.seed)

    def controlled(self) -> Cell | None:
        """The cell whose learned network this one is a control of."""
        of = self.label.of
        return None if of is None else replace(self, label=of)

    @property
    def run(self) -> str:
        """Names the run, in checkpoints and locks: plain training is one and the same for every task."""
        if self.label.name != PLAIN or self.suite != "accuracy":
            return self.hash
        return digest({**self.identity(), "task": PLAIN, "task_version": 0})


def digest(identity: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of the SHA-256 of what can be written as JSON."""
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class Workshop:
    """Makes each task once, so that cells share its data and its reference run.

    Args:
        context: of every task.
        out: the folder of everything that is written.
        seconds: between two checkpoints of a run.
        code: the commit of the code and whether it was changed, where this process has a copy that is no checkout.
    """

    context: Context
    out: Path
    seconds: float = 60.0
    code: Mapping[str, Any] = field(default_factory=dict)
    _tasks: dict[tuple[str, torch.device], Task] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.context = replace(self.context, cache=self.out / "cache")

    def lock(self, cell: Cell) -> Path:
        """The file that a process locks while it is busy with a cell."""
        path = self.out / "locks" / cell.run
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def keeper(self, cell: Cell) -> Keeper:
        """Of the checkpoints of a cell's run."""
        about = {} if cell.data is None else cell.data.recorded()
        return Keeper(self.out / "checkpoints" / f"{cell.run}.safetensors", self.seconds, about)

    def task(self, name: str, device: torch.device | None = None) -> Task:
        """The task, by default on the context's device."""
        device = device or self.context.device
        if (name, device) not in self._tasks:
            self._tasks[name, device] = factory(name)(replace(self.context, device=device))
        return self._tasks[name, device]

    def suite(self, cell: Cell) -> Suite:
        """What measures a cell."""
        return suite.get(cell.suite)

    def job(self, cell: Cell) -> Job:
        """A cell as its suite sees it.

        Raises:
            ValueError: the data set that is found here is not the one of the cell.
        """
        task, on_cpu = self.task(cell.task), self.task(cell.task, torch.device("cpu"))
        if cell.data is not None and (found := task.data.content) != cell.data.content:
            raise ValueError(
                f"{cell.data.name} is another data set here: content {found} instead of {cell.data.content}"
            )
        handed = dict(cell.handed)

        def learned() -> Rows:
            other = cell.controlled()
            path = None if other is None else self.out / "rows" / f"{other.hash}.jsonl"
            return table.read_file(path) if path is not None and path.exists() else []

        of_cpu = Granted(on_cpu, handed)
        return Job(cell.label, cell.seed, cell.own, Granted(task, handed), of_cpu, self.keeper(cell), learned)
