"""Files and folders with a temporary name until they are whole, and the removal of those that a killed process left.

The temporary name says which process on which machine is writing. When something is next written into the same folder,
what nobody is writing any more is removed: what a process of this machine left that has ended, and whatever has not
changed for a day, which is all that can be judged of another machine's.
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
"""Seconds without a change after which nobody is taken to be writing any more."""

_NAME = re.compile(r"\..+\.(?P<machine>[0-9a-f]{8})-(?P<process>\d+)\.partial")


@contextmanager
def file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; in the end it becomes `path`, or on an error nothing.

    Raises:
        OSError: the folder cannot be made or the file not moved into place.
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
    """A temporary folder in `parent`, which exists, deleted in the end with all that is in it then.

    Raises:
        OSError: it cannot be made.
    """
    sweep(parent)
    with TemporaryDirectory(dir=parent, prefix=f".{what}-", suffix=_suffix()) as inside:
        yield Path(inside)


def sweep(parent: Path) -> None:
    """Remove from `parent` what was begun there and nobody is writing any more."""
    for path in parent.glob(".*.partial"):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        try:
            old = time.time() - path.stat().st_mtime > AGE
            if old or (match["machine"] == _machine() and not _runs(int(match["process"]))):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError:
            continue  # another process was quicker, or it is another user's


def _suffix() -> str:
    return f".{_machine()}-{os.getpid()}.partial"


def _machine() -> str:
    """8 hexadecimal digits of whatever shares its process numbers with this process."""
    try:
        space = os.readlink("/proc/self/ns/pid")  # of a container
    except OSError:
        space = ""
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


def _runs(process: int) -> bool:
    """Whether a process of this machine is there; True where that cannot be asked."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)  # no signal, only the question
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # of another user, or no process number
        return True
    return True
