"""Files and folders that have a temporary name until they are complete, and the removal of abandoned ones.

The temporary name identifies the machine and the process that writes. The next write into the same folder removes
abandoned files: those of processes of this machine that have ended, and all that have not changed for a day. For
processes of other machines only the age can be checked.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

AGE = 24 * 3600.0
"""Seconds without a change after which a temporary file counts as abandoned."""

_NAME = re.compile(r"\..+\.(?P<machine>[0-9a-f]{8})-(?P<process>\d+)\.partial")


@contextmanager
def file(path: Path) -> Iterator[Path]:
    """A temporary file name beside `path`. At the end it is renamed to `path`; after an error it is removed.

    Raises:
        OSError: the folder cannot be created or the file cannot be renamed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    temporary = path.with_name(f".{path.name}{_suffix()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def folder(parent: Path, what: str) -> Iterator[Path]:
    """A temporary folder in `parent`, which must exist. It is deleted at the end with everything in it.

    Raises:
        OSError: it cannot be created.
    """
    sweep(parent)
    with TemporaryDirectory(dir=parent, prefix=f".{what}-", suffix=_suffix()) as inside:
        yield Path(inside)


def sweep(parent: Path) -> None:
    """Remove abandoned temporary files and folders from `parent`."""
    for path in parent.glob(".*.partial"):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        try:
            old = time.time() - path.stat().st_mtime > AGE
            if old or (match["machine"] == _machine() and not _runs(int(match["process"]))):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError:
            continue  # another process has removed it, or it belongs to another user


def _suffix() -> str:
    return f".{_machine()}-{os.getpid()}.partial"


def _machine() -> str:
    """8 hexadecimal digits that identify the machine or container that shares process numbers with this process."""
    try:
        space = os.readlink("/proc/self/ns/pid")  # differs between containers
    except OSError:
        space = ""
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


def _runs(process: int) -> bool:
    """Whether a process of this machine exists; True if that cannot be determined."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)  # signal 0 only tests whether the process exists
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's process, or not a process number
        return True
    return True
