"""The format of a row, and its validation.

A row has measured values, made by `results.table.row`. It also says what was measured (``cell``) and with which
software and hardware (``provenance``)::

    {"schema": 2, "hash": "<16 hex>",
     "cell": {"suite", "suite_version", "task", "task_version",
              "estimator", "name", "options", "estimator_version",
              "preset", "preset_name", "changed",
              "dataset", "data", "data_note", "seed", "device", "settings"},
     "metric", "part", "point", "x", "unit", "value", "se", "n", "status", "message",
     "provenance": {"commit", "dirty", "python", "torch", "numpy", "device", "dtype", "wall_s", "processor", "learned"}}

``estimator``, ``preset`` and ``dataset`` are for display only and are never parsed. Their parts are in ``name`` and
``options``, in ``preset_name`` and ``changed``, and in ``data``, a hash of the content (null if no data are read; then
``dataset`` is "none"). ``learned`` is in the rows of what measures a network that another cell has learned: its widths.
Earlier rows lack ``processor`` and ``learned``.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

SCHEMA = 2
STATUSES = ("ok", "infeasible", "diverged", "oom", "timeout", "error")  # from best to worst

_TEXT = str | None
_NUMBER = float | int | None
MEASURED: dict[str, Any] = {
    "metric": str,
    "part": _TEXT,
    "point": _TEXT,
    "x": _NUMBER,
    "unit": str,
    "value": _NUMBER,
    "se": _NUMBER,
    "n": int,
    "status": str,
    "message": _TEXT,
}
_CELL: dict[str, Any] = {
    "suite": str,
    "suite_version": int,
    "task": str,
    "task_version": int,
    "estimator": str,
    "name": str,
    "options": dict,
    "estimator_version": int,
    "preset": str,
    "preset_name": str,
    "changed": dict,
    "dataset": str,
    "data": _TEXT,
    "data_note": str,
    "seed": int,
    "device": str,
    "settings": dict,
}
_PROVENANCE = ("commit", "dirty", "python", "torch", "numpy", "device", "dtype", "wall_s")


class TableError(ValueError):
    """A row or a file is not in the format that `results.table` writes. The message is one line."""


class OldSchemaError(TableError):
    """The rows have an older schema version."""


def load(line: str, cell_hash: str | None = None) -> dict[str, Any]:
    """Parse a line into a row, of the cell ``cell_hash`` or of any cell.

    Raises:
        ValueError: the line is not JSON.
        TableError: it is not a valid row.
        OldSchemaError: it is a row of an older schema version.
    """
    found = json.loads(line, parse_constant=_refuse_constant)
    if isinstance(found, dict) and isinstance(version := found.get("schema"), int) and version < SCHEMA:
        raise OldSchemaError(
            f"rows of schema {version}, which this version (schema {SCHEMA}) cannot read; move the folder away, or "
            "use another --out"
        )
    if problem := wrong(found, cell_hash):
        raise TableError(problem)
    assert isinstance(found, dict)
    return found


def dump(row: Mapping[str, Any]) -> str:
    """A row as a line of JSON, with a newline."""
    return json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n"


def plain(value: Any) -> Any:
    """Convert nested values to standard Python types; numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if not isinstance(value, (str, int, float, type(None))) and hasattr(value, "item"):
        value = value.item()  # a scalar of numpy or torch
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def wrong(found: Any, cell_hash: str | None = None) -> str | None:
    """What is wrong with a complete row, or None."""
    return next(_problems(found, cell_hash), None)


def wrong_measure(found: Mapping[str, Any]) -> str | None:
    """What is wrong with the measured values of a row, or None."""
    if problem := _wrong_types(found, MEASURED):
        return problem
    if found["status"] not in STATUSES:
        return f"status {found['status']!r}, expected one of {', '.join(STATUSES)}"
    return None


def _problems(found: Any, cell_hash: str | None) -> Iterator[str]:
    if not isinstance(found, dict):
        yield f"expected a JSON object, found {type(found).__name__}"
    elif found.get("schema") != SCHEMA:
        yield f"schema {found.get('schema')!r}, this version reads {SCHEMA}"
    else:
        mine = found.get("hash")
        if not re.fullmatch(r"[0-9a-f]{16}", str(mine if cell_hash is None else cell_hash)):
            yield f"the cell's hash must be 16 hexadecimal digits, not {mine if cell_hash is None else cell_hash!r}"
        if cell_hash is not None and mine != cell_hash:
            yield f"hash {mine!r} in a file of {cell_hash!r}"
        for name, keys in (("cell", _CELL), ("provenance", _PROVENANCE)):
            inner = found.get(name)
            if not isinstance(inner, dict):
                yield f"no {name}"
            elif missing := [key for key in keys if key not in inner]:
                yield f"{name} lacks {', '.join(missing)}"
        if problem := _wrong_types(found["cell"], _CELL):
            yield f"cell: {problem}"
        if problem := wrong_measure(found):
            yield problem


def _wrong_types(found: Mapping[str, Any], kinds: Mapping[str, Any]) -> str | None:
    for name, kind in kinds.items():
        if name not in found:
            return f"no {name}"
        if not isinstance(found[name], kind) or isinstance(found[name], bool):
            return f"{name} is {found[name]!r}, expected {getattr(kind, '__name__', kind)}"
    return None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
