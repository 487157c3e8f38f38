"""Suites of measurements, and `compare`, which measures estimators on your own objective."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from suites.comparison import Monitor, compare

__all__ = ["Monitor", "compare"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # not at once: the command line must not wait for torch
        from suites import comparison

        return getattr(comparison, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
