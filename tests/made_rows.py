"""Rows as suites write them, made up for tests."""

from typing import Any

PROVENANCE: dict[str, Any] = {
    "commit": "0123abcd",
    "dirty": False,
    "python": "3.12.1",
    "torch": "2.9.0",
    "numpy": "2.3.0",
    "device": "cpu",
    "dtype": "float32",
    "wall_s": 2.0,
}


def cell(suite: str, task: str, estimator: str, **given: Any) -> dict[str, Any]:
    """The cell of a row, with fields other than these by name."""
    found: dict[str, Any] = {
        "suite": suite,
        "suite_version": 1,
        "task": task,
        "task_version": 1,
        "estimator": estimator,
        "name": estimator.partition("[")[0],
        "options": {},
        "estimator_version": 1,
        "preset": "small",
        "changed": {},
        "dataset": "digits",
        "data_note": "",
        "seed": 0,
        "device": "cpu",
        "settings": {"train": {"epochs": 1}},
        **given,
    }
    found.setdefault("preset_name", found["preset"].partition("[")[0])
    found.setdefault("data", None if found["dataset"] == "none" else "0123456789abcdef")
    return found
