"""A cell is one measurement. The workshop provides what measuring cells needs."""

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
    """One suite, estimator, task and seed, with everything that its code is handed.

    The identity consists of these, the versions of the code, the content of the data and the schema. Names (preset,
    label and data set) are not part of it. The git commit is not either; it is provenance.

    Attributes:
        own: the settings of the suite.
        handed: the settings of each role of the task.
        uses: label and version of each estimator that is used besides the measured one.
        data: the data set; None if no data are read.
        preset: the preset's label for tables, its name, and the changed settings.
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
        """The settings that were handed over, by group and field."""
        return settings.identity([self.own, *(handed for _, handed in self.handed)])

    def identity(self) -> dict[str, Any]:
        """The data that the hash is computed from."""
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
        """The cell as recorded in its rows: its identity and its names."""
        label, name, changed = self.preset
        called = {"estimator": str(self.label), "preset": label, "preset_name": name, "changed": dict(changed)}
        data = {"dataset": "none", "data_note": ""}
        if self.data is not None:
            data = {"dataset": self.data.dataset, "data_note": self.data.note}
        found = {**self.identity(), **called, **data}
        del found["schema"]  # every row has it separately
        return found

    @functools.cached_property
    def hash(self) -> str:
        """16 hexadecimal digits that identify the cell."""
        return digest(self.identity())

    @property
    def work(self) -> object:
        """A key: cells with equal keys share computations and are run together."""
        shares = suite.get(self.suite).shares
        return self.hash if shares is None else (shares, self.task, self.label, self.seed)

    def needed(self) -> Cell | None:
        """The cell whose learned network this one needs: of a control, or in a suite that follows another, or None."""
        follows = suite.get(self.suite).follows
        if follows is not None:
            return replace(self, suite=follows, suite_version=suite.get(follows).version)
        of = self.label.of
        return None if of is None else replace(self, label=of)

    @property
    def run(self) -> str:
        """The name of the run in checkpoints and locks. Plain training is the same run for every task."""
        if self.label.name != PLAIN or self.suite != "accuracy":
            return self.hash
        return digest({**self.identity(), "task": PLAIN, "task_version": 0})


def digest(identity: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of the SHA-256 of JSON data."""
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class Workshop:
    """Creates each task once, so that cells share its data and its reference run.

    Args:
        context: the context of every task.
        out: the folder for everything that is written.
        seconds: least time between two checkpoints of a run.
        code: commit of the code and whether it was modified, if this process has a copy that is not a git checkout.
    """

    context: Context
    out: Path
    seconds: float = 60.0
    code: Mapping[str, Any] = field(default_factory=dict)
    _tasks: dict[tuple[str, torch.device], Task] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.context = replace(self.context, cache=self.out / "cache")

    def lock(self, cell: Cell) -> Path:
        """The file that a process locks while it runs a cell."""
        path = self.out / "locks" / cell.run
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def keeper(self, cell: Cell) -> Keeper:
        """The keeper of the checkpoints of a cell's run."""
        about = {} if cell.data is None else cell.data.recorded()
        return Keeper(self.out / "checkpoints" / f"{cell.run}.safetensors", self.seconds, about)

    def task(self, name: str, device: torch.device | None = None) -> Task:
        """The task, on the context's device by default."""
        device = device or self.context.device
        if (name, device) not in self._tasks:
            self._tasks[name, device] = factory(name)(replace(self.context, device=device))
        return self._tasks[name, device]

    def suite(self, cell: Cell) -> Suite:
        """The suite of a cell."""
        return suite.get(cell.suite)

    def job(self, cell: Cell) -> Job:
        """A cell as its suite sees it.

        Raises:
            ValueError: the data set found here is not the cell's.
        """
        task, on_cpu = self.task(cell.task), self.task(cell.task, torch.device("cpu"))
        if cell.data is not None and (found := task.data.content) != cell.data.content:
            raise ValueError(
                f"{cell.data.name} is another data set here: content {found} instead of {cell.data.content}"
            )
        handed = dict(cell.handed)

        def learned() -> Rows:
            other = cell.needed()
            return [] if other is None else table.rows_of(self.out / "rows", other.hash)

        of_cpu = Granted(on_cpu, handed)
        return Job(cell.label, cell.seed, cell.own, Granted(task, handed), of_cpu, self.keeper(cell), learned)
