"""Stores many cells in one file: JSON Lines of all their rows, compressed with gzip.

A folder of rows may contain such a file, ``rows.jsonl.gz``, instead of or besides the files of single cells. Equal rows
give equal bytes.
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
    """Write the rows of cells, given by hash, atomically. Returns the path."""
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    text = "".join(schema.dump(row) for _, rows in sorted(cells.items()) for row in rows)
    try:
        with temporary.open("wb") as written:
            written.write(gzip.compress(text.encode(), compresslevel=9, mtime=0))
            written.flush()
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read(directory: str | os.PathLike[str]) -> dict[str, Rows]:
    """The rows of the packed cells of a folder, by hash; empty without such a file.

    Raises:
        TableError: the file is damaged; the message names the file and the line.
    """
    path = Path(directory) / NAME
    if not path.exists():
        return {}
    there = path.stat()
    return _read(path, there.st_mtime_ns, there.st_size)


@functools.lru_cache(maxsize=4)
def _read(path: Path, _modified: int, _size: int) -> dict[str, Rows]:
    cells: dict[str, Rows] = {}
    number = 1
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
            for line in file:
                found = schema.load(line)
                cells.setdefault(found["hash"], []).append(found)
                number += 1
    except schema.OldSchemaError as error:
        raise schema.OldSchemaError(f"{path}: {error}") from None
    except (ValueError, OSError, EOFError) as error:
        raise schema.TableError(f"{path}, line {number}: {error}; delete or move that file") from None
    return cells
