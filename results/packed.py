"""Many cells in one file: JSON Lines of all their rows, compressed with gzip.

A folder of rows may hold such a file, ``rows.jsonl.gz``, in place of or beside the files of single cells. The same rows
make the same bytes.
"""

import functools
import gzip
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from results import schema

NAME = "rows.jsonl.gz"

Rows = list[dict[str, Any]]


def write(cells: Mapping[str, Sequence[Mapping[str, Any]]], file: str | os.PathLike[str]) -> Path:
    """Write the rows of cells, given by hash, whole or not at all, and return the path."""
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    text = "".join(schema.dump(row) for _, rows in sorted(cells.items()) for row in rows)
    try:
        temporary.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read(directory: str | os.PathLike[str]) -> dict[str, Rows]:
    """The rows of the packed cells of a folder by hash; none if it has no such file.

    Raises:
        TableError: naming the file and the line.
    """
    path = Path(directory) / NAME
    if not path.exists():
        return {}
    there = path.stat()
    return _read(path, there.st_mtime_ns, there.st_size)


@functools.lru_cache(maxsize=4)
def _read(path: Path, _modified: int, _size: int) -> dict[str, Rows]:
    cells: dict[str, Rows] = {}
    number = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                found = schema.load(line)
                cells.setdefault(found["hash"], []).append(found)
    except schema.OldSchemaError as error:
        raise schema.OldSchemaError(f"{path}: {error}") from None
    except (ValueError, OSError, EOFError) as error:
        raise schema.TableError(f"{path}, line {number}: {error}; delete or move that file") from None
    return cells
