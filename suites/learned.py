"""The architecture that an earlier run has learned, from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from suites.labels import Label
from suites.suite import Job
from vmo.space import Architecture


class Missing(ValueError):
    """The network that a cell needs does not exist."""


def widths(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """The learned width of each block, in channels; empty if the rows have none, as those of a failed run."""
    found = {row["x"]: int(row["value"]) for row in rows if row["metric"] == "block_width"}
    return [found[block] for block in sorted(found)]


def architecture(job: Job, of: Label | None) -> Architecture:
    """The architecture of the run that this cell needs.

    Args:
        job: the cell.
        of: whose run that is, for the message.

    Raises:
        Missing: the run has not finished, or has no network.
    """
    found = job.learned()
    hidden = tuple(widths(found))
    if not hidden:
        status = found[0]["status"] if found else "missing"
        status = "without a row of its widths" if status == "ok" else status
        raise Missing(f"needs the network that {of} learned on {job.task.name}, seed {job.seed}; that run is {status}")
    return Architecture(len(hidden), hidden)
