"""Independent pieces of a report, drawn and written by several processes where there are many of them."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from joblib import Parallel, delayed

T = TypeVar("T")


def each(calls: Sequence[Callable[[], T]], few: int = 4) -> list[T]:
    """The results of all calls, in their order.

    Args:
        calls: calls and results must be picklable. Calls may change only files.
        few: up to so many calls take less time in this process than other processes take to start.
    """
    found: list[T] = Parallel(n_jobs=1 if len(calls) <= few else -1)(delayed(call)() for call in calls)
    return found
