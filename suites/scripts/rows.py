"""Writes rows for measurements outside the suites, as cells with an identity like any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from results import table
from suites.engine.cell import digest
from suites.engine.execute import provenance


def write(
    folder: Path,
    found: Sequence[Mapping[str, Any]],
    *,
    suite: str,
    task: str,
    settings: Mapping[str, Mapping[str, Any]],
    name: str = "plain",
    preset: str = "",
    task_version: int = 1,
    device: torch.device | None = None,
    dtype: str = "float32",
    seconds: float | None = None,
) -> Path:
    """Write the rows of one cell and return their file.

    Args:
        folder: the folder of rows.
        found: the measured values, see `results.table.row`.
        suite: the name of the measurement.
        task: the name of the task.
        settings: all values that the numbers depend on, by group and field.
        name: the estimator's name, or "plain".
        preset: the preset of the settings, or "".
        task_version: the version of the task.
        device: default: the CPU.
        dtype: the dtype of the computation.
        seconds: how long it took.
    """
    device = device or torch.device("cpu")
    cell: dict[str, Any] = {
        "suite": suite, "suite_version": 1, "task": task, "task_version": task_version, "name": name, "options": {},
        "estimator_version": 1, "uses": {}, "data": None, "seed": 0, "device": device.type,
        "settings": {group: dict(values) for group, values in settings.items()},
    }  # fmt: skip
    identity = digest({"schema": table.SCHEMA, **cell})
    cell |= {"estimator": name, "preset": preset or suite, "preset_name": preset or suite, "changed": {}}
    cell |= {"dataset": "none", "data_note": ""}
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu × {torch.get_num_threads()}"
    measured = {"device": where, "dtype": dtype, "wall_s": None if seconds is None else round(seconds, 3)}
    shared = {"cell": cell, "provenance": {**provenance(), **measured}}
    return table.write(folder, identity, [{**one, **shared} for one in found])
