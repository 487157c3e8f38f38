"""A cell, one measurement to make, and the workshop in which cells are measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from results.table import SCHEMA
from suites.engine.labels import PLAIN, Label
from suites.tasks import factory
from suites.tasks.base import Context, Task
from vmo.checkpoint import Keeper

_OF_PLAIN = ("depth", "widen", "batch_size", "lr", "epochs", "bf16", "compile", "device")


@dataclass(frozen=True)
class Cell:
    """One suite of one estimator on one task and seed, with every setting it depends on.

    Its identity is all of that and the schema, not the git commit, which is provenance only.
    """

    suite: str
    task: str
    task_version: int
    label: Label
    preset: str
    dataset: str
    seed: int
    settings: tuple[tuple[str, Any], ...]

    def described(self) -> dict[str, Any]:
        """The cell as its rows record it."""
        return {
            "suite": self.suite,
            "task": self.task,
            "task_version": self.task_version,
            "estimator": str(self.label),
            "estimator_version": self.label.version,
            "preset": self.preset,
            "dataset": self.dataset,
            "seed": self.seed,
            "settings": dict(self.settings),
        }

    def hash(self) -> str:
        """16 hexadecimal digits that name the cell."""
        text = json.dumps({"schema": SCHEMA, **self.described()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def work(self) -> object:
        """Equal for cells that share work: bias and variance read the same measurement."""
        return (self.task, self.label, self.seed) if self.suite in ("bias", "variance") else self.hash()

    def controlled(self) -> Cell | None:
        """The cell whose learned network this one is a control of."""
        of = self.label.of
        return None if of is None else replace(self, label=of)

    def run(self) -> str:
        """Names the run, in checkpoints and locks: plain training is one and the same for every task and penalty."""
        if self.label.name != PLAIN or self.suite != "accuracy":
            return self.hash()
        read = tuple((key, value) for key, value in self.settings if key in _OF_PLAIN)
        return replace(self, task=PLAIN, preset="", settings=read).hash()


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
        path = self.out / "locks" / cell.run()
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def keeper(self, cell: Cell) -> Keeper:
        """Of the checkpoints of a cell's run."""
        return Keeper(self.out / "checkpoints" / f"{cell.run()}.safetensors", self.seconds)

    def task(self, name: str, device: torch.device | None = None) -> Task:
        """The task, by default on the context's device."""
        device = device or self.context.device
        if (name, device) not in self._tasks:
            self._tasks[name, device] = factory(name)(replace(self.context, device=device))
        return self._tasks[name, device]
