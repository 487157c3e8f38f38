"""Independent pieces of a report, drawn and written by several processes where there are many of them."""

from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from joblib import Parallel, cpu_count, delayed

T = TypeVar("T")


def each(calls: Sequence[Callable[[], T]], few: int = 4) -> list[T]:
    """The results of all calls, in their order.

    Args:
        calls: calls and results must be picklable. Calls may change only files.
        few: up to so many calls take less time in this process than other processes take to start.
    """
    if len(calls) > few:
        try:
            # without max_nbytes=None large arrays would be read-only
            found: list[T] = Parallel(min(len(calls), cpu_count()), max_nbytes=None)(delayed(call)() for call in calls)
        except BrokenProcessPool:  # a process was killed, perhaps for memory: one after the other needs less of it
            pass
        else:
            return found
    return [call() for call in calls]
