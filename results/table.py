"""The table: JSON Lines, one immutable file per finished cell, ``DIR/<hash>.jsonl``.

A file is written under a temporary name and moved into place, so that it is there whole or not at all; two sweeps may
share a directory, and merging two tables is reading two directories. JSON Lines after https://jsonlines.org; NaN and
infinities, which JSON has no word for, are stored as null.

A row has a measured half, made by :func:`row`, and says what it was measured on (``cell``) and with
(``provenance``)::

    {"schema": 1, "hash": "<16 hex>",
     "cell": {"suite", "task", "task_version", "estimator", "estimator_version", "preset", "dataset", "seed",
              "settings"},
     "metric", "part", "point", "x", "unit", "value", "se", "n", "status", "message",
     "provenance": {"commit", "dirty", "python", "torch", "numpy", "device", "dtype", "wall_s"}}
"""

import json
import math
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

SCHEMA = 1
STATUSES = ("ok", "infeasible", "diverged", "oom", "timeout", "error")  # from best to worst

_TEXT = str | None
_NUMBER = float | int | None
_MEASURED: dict[str, Any] = {
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
_CELL = ("suite", "task", "task_version", "estimator", "estimator_version", "preset", "dataset", "seed", "settings")
_PROVENANCE = ("commit", "dirty", "python", "torch", "numpy", "device", "dtype", "wall_s")

# Every column of `read`, where it is found in a row, and its dtype.
_COLUMNS = {
    "hash": ("", "str"),
    "suite": ("cell", "str"),
    "task": ("cell", "str"),
    "task_version": ("cell", "str"),
    "estimator": ("cell", "str"),
    "preset": ("cell", "str"),
    "dataset": ("cell", "str"),
    "seed": ("cell", "Int64"),
    "metric": ("", "str"),
    "part": ("", "str"),
    "point": ("", "str"),
    "x": ("", "float64"),
    "unit": ("", "str"),
    "value": ("", "float64"),
    "se": ("", "float64"),
    "n": ("", "int64"),
    "status": ("", "str"),
    "message": ("", "str"),
    "device": ("provenance", "str"),
    "dtype": ("provenance", "str"),
    "commit": ("provenance", "str"),
    "dirty": ("provenance", "boolean"),
    "wall_s": ("provenance", "float64"),
    "python": ("provenance", "str"),
    "torch": ("provenance", "str"),
    "numpy": ("provenance", "str"),
}


class TableError(ValueError):
    """A row or a file that is not what this module writes; the message is one line."""


def row(
    metric: str,
    value: float | None,
    *,
    unit: str = "",
    se: float | None = None,
    n: int = 1,
    part: str | None = None,
    point: str | None = None,
    x: float | None = None,
    status: str = "ok",
    message: str | None = None,
) -> dict[str, Any]:
    """The measured half of a row: ``value`` ± ``se`` from ``n`` draws; TableError when a field has the wrong type."""
    fields = locals()
    measured: dict[str, Any] = {key: _plain(fields[key]) for key in _MEASURED}
    if problem := _wrong_measure(measured):
        raise TableError(problem)
    return measured


def write(directory: str | os.PathLike[str], cell_hash: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write all rows of one cell as ``directory/<cell_hash>.jsonl``, whole or not at all, and return that path.

    ``schema`` and ``hash`` are filled in. Raises TableError, before anything is written, on a row that lacks a field.
    """
    if not rows:
        raise TableError(f"cell {cell_hash}: no rows; a cell that failed is a row with another status than ok")
    lines = []
    for number, given in enumerate(rows, 1):
        full = _plain({"schema": SCHEMA, "hash": cell_hash, **given})
        if problem := _wrong(full, cell_hash):
            raise TableError(f"cell {cell_hash}, row {number}: {problem}")
        lines.append(json.dumps(full, allow_nan=False, ensure_ascii=False) + "\n")
    path = Path(directory) / f"{cell_hash}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{cell_hash}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "x", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_file(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of one file; TableError names the file, the line, what is wrong and what to do about it."""
    path = Path(path)
    rows: list[dict[str, Any]] = []
    try:
        # Not splitlines: it also splits at U+2028 and its like, which JSON strings may hold unescaped.
        *lines, rest = path.read_text(encoding="utf-8").split("\n")
        for line in lines:
            found = json.loads(line, parse_constant=_refuse_constant)
            if problem := _wrong(found, path.stem):
                raise ValueError(problem)
            rows.append(found)
        if rest or not rows:
            raise ValueError("the line does not end" if rest else "the file has no rows")
    except ValueError as error:
        raise TableError(f"{path}, line {len(rows) + 1}: {error}; delete or move that file") from None
    return rows


def read(*directories: str | os.PathLike[str]) -> pd.DataFrame:
    """Every row of the directories as flat columns; a cell that is in several is taken from the first.

    A directory that does not exist has no rows, and no rows are an empty frame with the same columns and dtypes.
    """
    files: dict[str, Path] = {}
    for directory in directories:
        for path in sorted(Path(directory).glob("*.jsonl")):
            if not path.name.startswith("."):
                files.setdefault(path.name, path)
    records = [_flat(found) for path in files.values() for found in read_file(path)]
    columns = {
        name: pd.Series([record[i] for record in records], dtype=dtype)
        for i, (name, (_, dtype)) in enumerate(_COLUMNS.items())
    }
    return pd.DataFrame(columns)


def status(directory: str | os.PathLike[str], cell_hash: str) -> str | None:
    """The worst status among the rows of a cell, or None when the cell has no file."""
    path = Path(directory) / f"{cell_hash}.jsonl"
    if not path.exists():
        return None
    worst: str = max((found["status"] for found in read_file(path)), key=STATUSES.index)
    return worst


def _flat(found: Mapping[str, Any]) -> list[Any]:
    return [(found[where] if where else found).get(name) for name, (where, _) in _COLUMNS.items()]


def _plain(value: Any) -> Any:
    """Standard Python all the way down, with None for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if not isinstance(value, (str, int, float, type(None))) and hasattr(value, "item"):
        value = value.item()  # a scalar of numpy or torch
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def _wrong(found: Any, cell_hash: str) -> str | None:
    """What is wrong with a whole row, or None."""
    return next(_problems(found, cell_hash), None)


def _problems(found: Any, cell_hash: str) -> Iterator[str]:
    if not isinstance(found, dict):
        yield f"expected a JSON object, found {type(found).__name__}"
    elif found.get("schema") != SCHEMA:
        yield f"schema {found.get('schema')!r}, this version reads {SCHEMA}"
    else:
        if not re.fullmatch(r"[0-9a-f]{16}", cell_hash):
            yield f"the cell's hash must be 16 hexadecimal digits, not {cell_hash!r}"
        if found.get("hash") != cell_hash:
            yield f"hash {found.get('hash')!r} in a file of {cell_hash!r}"
        for name, keys in (("cell", _CELL), ("provenance", _PROVENANCE)):
            inner = found.get(name)
            if not isinstance(inner, dict):
                yield f"no {name}"
            elif missing := [key for key in keys if key not in inner]:
                yield f"{name} lacks {', '.join(missing)}"
        if problem := _wrong_measure(found):
            yield problem


def _wrong_measure(found: Mapping[str, Any]) -> str | None:
    for name, kind in _MEASURED.items():
        if name not in found:
            return f"no {name}"
        if not isinstance(found[name], kind) or isinstance(found[name], bool):
            return f"{name} is {found[name]!r}, expected {getattr(kind, '__name__', kind)}"
    if found["status"] not in STATUSES:
        return f"status {found['status']!r}, expected one of {', '.join(STATUSES)}"
    return None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
