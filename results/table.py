"""The table of results: JSON Lines, one immutable file ``DIR/<hash>.jsonl`` per finished cell, or many packed in one.

A file is written under a temporary name and then renamed, so it is always complete. Several sweeps may share a
directory. To merge two tables, read both directories. The format is that of https://jsonlines.org; NaN and infinities,
which JSON does not support, are stored as null. The format of a row: `results.schema`.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from results import packed, schema
from results.schema import MEASURED, SCHEMA, STATUSES, TableError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "SCHEMA",
    "STATUSES",
    "Outcome",
    "TableError",
    "hashes",
    "outcome",
    "pack",
    "read",
    "read_file",
    "row",
    "rows_of",
    "status",
    "write",
]

# The columns of `read`, their place in a row, and their dtype. There is one more for every option, `option.<name>`.
_COLUMNS = {
    "hash": ("", "str"),
    "suite": ("cell", "str"),
    "suite_version": ("cell", "int64"),
    "task": ("cell", "str"),
    "task_version": ("cell", "int64"),
    "estimator": ("cell", "str"),
    "name": ("cell", "str"),
    "preset": ("cell", "str"),
    "preset_name": ("cell", "str"),
    "changed": ("cell", "str"),
    "dataset": ("cell", "str"),
    "data": ("cell", "str"),
    "data_note": ("cell", "str"),
    "seed": ("cell", "int64"),
    "settings": ("cell", "str"),
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
    "processor": ("provenance", "str"),
}
_STALE = 24 * 3600.0  # age in seconds at which a temporary file counts as abandoned


class Outcome(NamedTuple):
    """The worst status among the rows of a cell, and its message."""

    status: str
    message: str


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
    """The measured values of a row: ``value`` ± ``se`` from ``n`` draws. TableError if a field has the wrong type."""
    fields = locals()
    measured: dict[str, Any] = {key: schema.plain(fields[key]) for key in MEASURED}
    if problem := schema.wrong_measure(measured):
        raise TableError(problem)
    return measured


def write(directory: str | os.PathLike[str], cell_hash: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write all rows of one cell to ``directory/<cell_hash>.jsonl`` atomically. Returns the path.

    ``schema`` and ``hash`` are filled in. An invalid row raises TableError before anything is written. Temporary files
    that are older than a day are removed.
    """
    if not rows:
        raise TableError(f"cell {cell_hash}: no rows; a failed cell needs a row with its status")
    lines = []
    for number, given in enumerate(rows, 1):
        full = schema.plain({"schema": SCHEMA, "hash": cell_hash, **given})
        if problem := schema.wrong(full, cell_hash):
            raise TableError(f"cell {cell_hash}, row {number}: {problem}")
        lines.append(schema.dump(full))
    path = Path(directory) / f"{cell_hash}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
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


def _sweep(directory: Path) -> None:
    for left in directory.glob(".*.tmp"):
        try:
            if time.time() - left.stat().st_mtime > _STALE:
                left.unlink()
        except FileNotFoundError:  # another writer was faster
            pass


def read_file(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of one file. TableError names the file, the line, the problem and what to do."""
    path = Path(path)
    rows: list[dict[str, Any]] = []
    try:
        # Not splitlines, which also splits at U+2028 and similar characters that JSON strings may contain unescaped.
        *lines, rest = path.read_text(encoding="utf-8").split("\n")
        for line in lines:
            rows.append(schema.load(line, path.stem))
        if rest or not rows:
            raise ValueError("the line does not end" if rest else "the file has no rows")
    except schema.OldSchemaError as error:
        raise schema.OldSchemaError(f"{path}: {error}") from None
    except ValueError as error:
        raise TableError(f"{path}, line {len(rows) + 1}: {error}; delete or move that file") from None
    return rows


def pack(directory: str | os.PathLike[str], file: str | os.PathLike[str]) -> Path:
    """Write all cells of a directory into one compressed file. `read` reads it if its name is rows.jsonl.gz.

    Equal rows give equal bytes. Raises TableError if there are no rows.
    """
    cells = _cells([directory])
    if not cells:
        raise TableError(f"no rows in {directory}")
    return packed.write(cells, file)


def read(*directories: str | os.PathLike[str]) -> pd.DataFrame:
    """All rows of the directories as a frame. A cell that is in several directories is taken from the first.

    Options are columns ``option.<name>`` of Python objects, with lists as tuples and None if an estimator has no such
    option. ``settings`` and ``changed`` are JSON text. If a name stands for data of several contents, ``dataset`` tells
    them apart. A missing directory has no rows. Without rows the frame is
    empty, with the same columns and dtypes but no options.
    """
    import pandas as pd  # takes a second to import, and writing rows does not need it

    cells = _cells(directories).values()
    records = [record for rows in cells for record in _flat(rows)]
    columns = {
        name: pd.Series([record[i] for record in records], dtype=dtype)
        for i, (name, (_, dtype)) in enumerate(_COLUMNS.items())
    }
    options = [rows[0]["cell"]["options"] for rows in cells for _ in rows]
    for name in sorted({name for given in options for name in given}):
        columns[f"option.{name}"] = pd.Series([_hashable(given.get(name)) for given in options], dtype="object")
    return _by_content(pd.DataFrame(columns))


def _by_content(frame: pd.DataFrame) -> pd.DataFrame:
    """Data sets of one name with several contents get several names, so that no mean mixes them.

    The content with most cells keeps the name. The others have a part of their hash behind it.
    """
    cells = frame.drop_duplicates("hash")
    counts = cells.groupby(["dataset", "data"])["hash"].count().sort_values(ascending=False, kind="stable")
    main = counts.reset_index().drop_duplicates("dataset").set_index("dataset")["data"]
    other = frame["data"].notna() & (frame["data"] != frame["dataset"].map(main))
    if other.any():
        frame.loc[other, "dataset"] += " (" + frame.loc[other, "data"].str[:8] + ")"
    return frame


def hashes(directory: str | os.PathLike[str]) -> set[str]:
    """The hashes of a directory's cells, without reading the files of single cells."""
    files = {path.stem for path in Path(directory).glob("*.jsonl") if not path.name.startswith(".")}
    return files | set(packed.read(directory))


def rows_of(directory: str | os.PathLike[str], cell_hash: str) -> list[dict[str, Any]]:
    """The rows of a cell, from its own file or from a packed one; none if the directory does not contain it."""
    path = Path(directory) / f"{cell_hash}.jsonl"
    return read_file(path) if path.exists() else packed.read(directory).get(cell_hash, [])


def status(directory: str | os.PathLike[str], cell_hash: str) -> str | None:
    """The worst status among the rows of a cell, or None if the directory does not contain it."""
    found = outcome(directory, cell_hash)
    return None if found is None else found.status


def outcome(directory: str | os.PathLike[str], cell_hash: str) -> Outcome | None:
    """The worst status of a cell and its message, or None if the directory does not contain it."""
    rows = rows_of(directory, cell_hash)
    if not rows:
        return None
    worst = max(rows, key=lambda found: STATUSES.index(found["status"]))
    return Outcome(worst["status"], worst["message"] or "")


def _cells(directories: Iterable[str | os.PathLike[str]]) -> dict[str, list[dict[str, Any]]]:
    """Rows by cell, from the first directory that has it; the file of a single cell comes before a packed file."""
    files: dict[str, Path] = {}
    cells: dict[str, list[dict[str, Any]]] = {}
    for directory in directories:
        for path in sorted(Path(directory).glob("*.jsonl")):
            if not path.name.startswith(".") and path.stem not in cells:
                files.setdefault(path.stem, path)
                cells[path.stem] = []
        for cell_hash, rows in packed.read(directory).items():
            cells.setdefault(cell_hash, rows)
    return {cell_hash: read_file(files[cell_hash]) if cell_hash in files else rows for cell_hash, rows in cells.items()}


def _flat(rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """The columns of the rows of one cell, whose ``cell`` entries are all equal."""
    cell = {
        name: json.dumps(value, sort_keys=True) if isinstance(value, dict) else value
        for name, value in rows[0]["cell"].items()
    }
    places = [({"cell": cell} if where == "cell" else None, where, name) for name, (where, _) in _COLUMNS.items()]
    return [
        [(shared[where] if shared else found[where] if where else found).get(name) for shared, where, name in places]
        for found in rows
    ]


def _hashable(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_hashable(inner) for inner in value)
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value
