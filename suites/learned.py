"""The architecture that an earlier run has learned, from its rows."""

from __future__ import annotations

from suites.labels import Label
from suites.suite import Job
from vmo.space import Architecture


class Missing(ValueError):
    """The network that a cell needs does not exist."""


def architecture(job: Job, of: Label | None) -> Architecture:
    """The architecture of the run that this cell needs.

    Args:
        job: the cell.
        of: whose run that is, for the message.

    Raises:
        Missing: the run has not finished, or has no network.
    """
    found = job.learned()
    widths = {row["x"]: int(row["value"]) for row in found if row["metric"] == "block_width"}
    if not widths:
        status = found[0]["status"] if found else "missing"
        status = "without a row of its widths" if status == "ok" else status
        raise Missing(f"needs the network that {of} learned on {job.task.name}, seed {job.seed}; that run is {status}")
    hidden = tuple(widths[block] for block in sorted(widths))
    return Architecture(len(hidden), hidden)
