"""Which cells a computation has read, for whoever asks where its result comes from."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_read: ContextVar[set[str] | None] = ContextVar("read", default=None)


@contextmanager
def recorded() -> Iterator[set[str]]:
    """The hashes of the cells that are noted as long as it is open."""
    found: set[str] = set()
    token = _read.set(found)
    try:
        yield found
    finally:
        _read.reset(token)


def note(cells: Iterable[str]) -> None:
    """Say that these cells were read."""
    if (found := _read.get()) is not None:
        found.update(cells)
