"""The measured values on disk: one JSON file, written again after every finished run, so that nothing is lost."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from suites.scripts.published.experiment import Arm, Experiment
from vmo import partial

NAME = "published.json"
FIELDS = {"experiment": str, "arm": str, "seed": int, "length": int, "version": int, "seconds": float, "values": list}


class Store:
    """The measured values of all runs.

    Args:
        folder: the folder of the file.

    Raises:
        ValueError: the file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.runs = self._read()

    def values(self, experiment: Experiment, arm: Arm, seed: int, length: int) -> list[float] | None:
        """The values of a run; None if it was not done."""
        found = self.runs.get((experiment.name, arm.name, seed, length))
        return list(found["values"]) if found and self._fits(found, experiment, arm) else None

    def done(self, experiment: Experiment, arm: Arm) -> Iterator[tuple[int, int, Sequence[float]]]:
        """Seed, length and values of every run of an arm, in order."""
        for (name, label, seed, length), found in sorted(self.runs.items()):
            if (name, label) == (experiment.name, arm.name) and self._fits(found, experiment, arm):
                yield seed, length, found["values"]

    def seconds(self, experiment: Experiment) -> float:
        """The time of all stored runs of an experiment."""
        return sum(found["seconds"] for (name, *_), found in self.runs.items() if name == experiment.name)

    def add(
        self, experiment: Experiment, arm: Arm, seed: int, length: int, seconds: float, values: Sequence[float]
    ) -> None:
        """Keep the values of a run. Values of other processes that were written meanwhile are kept too."""
        run = {"experiment": experiment.name, "arm": arm.name, "seed": seed, "length": length,
               "version": experiment.version, "seconds": round(seconds, 1),
               "values": [value if math.isfinite(value) else None for value in values]}  # fmt: skip
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{NAME}.lock")):
            self.runs = {**self._read(), (experiment.name, arm.name, seed, length): run}
            with partial.file(self.path) as temporary:
                lines = (json.dumps(found, ensure_ascii=False) for _, found in sorted(self.runs.items()))
                temporary.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")

    def _fits(self, run: dict[str, Any], experiment: Experiment, arm: Arm) -> bool:
        return run["version"] == experiment.version and len(run["values"]) == len(arm.numbers)

    def _read(self) -> dict[tuple[str, str, int, int], dict[str, Any]]:
        if not self.path.exists():
            return {}
        try:
            runs = json.loads(self.path.read_text(encoding="utf-8"))
            if not all(_valid(run) for run in runs):
                raise ValueError("a run lacks a field")
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.path} is damaged ({error}); move it away to measure everything again") from error
        for run in runs:
            run["values"] = [math.nan if value is None else value for value in run["values"]]
        return {(run["experiment"], run["arm"], run["seed"], run["length"]): run for run in runs}


def _valid(run: Any) -> bool:
    return isinstance(run, dict) and all(
        isinstance(run.get(name), (int, float) if kind is float else kind) for name, kind in FIELDS.items()
    )
